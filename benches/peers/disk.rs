//! Reading from a VM's disk, seen from inside the guest.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use super::boot::ready;
use super::linuxkit::{self, LINUXKIT, Options};
use super::measure::{RUNS, in_turn};
use super::report::{Beside, Goal, Row};
use super::support::http;
use super::support::linux::Linux;
use super::support::sandbox::{PATIENCE, Sandbox, linux_guest};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 256 * MIB;

/// Two guests, one of which is idle while the other reads.
pub(crate) fn rows() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let theirs = disk(&sandbox, "theirs.img");
    let folder = sandbox.path().to_owned();
    let ours = disk(&sandbox, "ours.img");
    let option = format!("{},format=raw", ours.display());
    let linux = Linux::boot_in(sandbox, &linux_guest(), ["--disk", &option]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let prefix = linux_guest();
    let options = Options { prefix: &prefix, folder: &folder, disk: Some(&theirs), port: Some(port) };
    let mut peer = linuxkit::start(&options);
    ready(&mut peer.0);

    let read = |device: &str, block: u64, count: u64| {
        format!(
            "until dd if=/dev/{device} of=/dev/null count=1 2> /dev/null; do sleep 0.1; done # it may come after the guest is ready
            read before rest < /proc/uptime
            dd if=/dev/{device} of=/dev/null bs={block} count={count} iflag=direct 2> /dev/null || exit
            read after rest < /proc/uptime; echo $before $after"
        )
    };
    let ours = |block, count| rate(&linux.run(&read("vda", block, count)), block * count);
    let theirs = |block, count| rate(&sh(port, &read("sda", block, count)), block * count);
    let (large, small) = ((MIB, SIZE / MIB), (4096, 4096));
    let [our_large, their_large, our_small, their_small] = in_turn(
        RUNS,
        [
            &mut || ours(large.0, large.1),
            &mut || theirs(large.0, large.1),
            &mut || ours(small.0, small.1),
            &mut || theirs(small.0, small.1),
        ],
    );
    linux.quit();
    let row = |figure, ours, theirs, least| {
        Row::new(figure, "MB/s", ours, Beside::Peer(LINUXKIT, theirs), Goal::TimesTheRate(least))
    };
    vec![
        row("disk, reads of 1 MiB", &our_large, their_large, 2.0),
        row("disk, reads of 4 KiB", &our_small, their_small, 0.95),
    ]
}

/// Full of something, so that there is something to read.
fn disk(sandbox: &Sandbox, name: &str) -> std::path::PathBuf {
    let path = sandbox.file(name);
    write(&path);
    path
}

fn write(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    let block: Vec<u8> = (0..MIB).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
    (0..SIZE / MIB).for_each(|_| file.write_all(&block).unwrap());
}

fn sh(port: u16, script: &str) -> String {
    let answer = http::send(port, "POST", "/cgi-bin/sh", script).and_then(|sent| sent.answer(PATIENCE));
    answer.unwrap()
}

/// Megabytes a second, from the guest's uptime before and after, in seconds with two digits (its `dd` does not tell the time).
fn rate(said: &str, bytes: u64) -> f64 {
    let times: Vec<f64> = said.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [before, after] = times[..] else { panic!("{said}") };
    bytes as f64 / (after - before) / 1e6
}
