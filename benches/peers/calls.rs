//! Calls on open connections.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use super::ctl::GET_STATUS;
use super::limits::Served;
use super::line::Line;
use super::measure::{RUNS, in_turn};
use super::report::{Beside, Goal, Row};
use super::support::boot_sector::Guest;
use super::support::sandbox::Sandbox;

const QUERY_STATUS: &str = r#"{"execute":"query-status"}"#;
const PASSED_ON: &str =
    r#"{"method":"io.vmrun.Machine.Qmp","parameters":{"command":{"execute":"query-status"}}}"#;
const CLIENTS: usize = 50;
const RAW: &str = "query-status on QMP";
const AT_HAND: &str = "C program with the answer at hand";
const RELAYED: &str = "query-status through a C program";
/// How long calls are counted for one value.
const COUNTED: Duration = Duration::from_millis(250);

pub(crate) fn rows() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let monitor = sandbox.file("monitor");
    let options = ["--name", "vm", "--qmp"].map(OsStr::new);
    sandbox.detached(options.into_iter().chain([monitor.as_os_str(), image.as_os_str()]));
    sandbox.booted("vm");
    let control = sandbox.runtime().join("vm/control");
    let mut raw = Line::qmp(&monitor);
    raw.negotiate();
    // a VM of its own: a monitor has one client
    let other = Sandbox::new();
    let monitor = other.file("monitor");
    other.detached([OsStr::new("--qmp"), monitor.as_os_str(), other.boot_sector(Guest::Halted).as_os_str()]);
    let mut relay = Served::relay(other.path(), &monitor);
    let mut one = Line::control(&control);
    let mut at_hand = Served::answer(other.path(), &one.ask(GET_STATUS));
    let mut passing = Line::control(&control);
    let mut many: Vec<Line> = (0..CLIENTS).map(|_| Line::control(&control)).collect();

    let mut raw = || per_second(|| ask(&mut raw, QUERY_STATUS));
    let mut one = || per_second(|| ask(&mut one, GET_STATUS));
    let mut at_hand = || per_second(|| ask(&mut at_hand.line, GET_STATUS));
    let mut passing = || 1e6 / per_second(|| ask(&mut passing, PASSED_ON));
    let mut relayed = || 1e6 / per_second(|| ask(&mut relay.line, QUERY_STATUS));
    let mut many = || per_second(|| ask_all(&mut many));
    let [raw, one, at_hand, passing, relayed, many] =
        in_turn(RUNS, [&mut raw, &mut one, &mut at_hand, &mut passing, &mut relayed, &mut many]);
    let raw_time = raw.map(|rate| 1e6 / rate);
    vec![
        Row::new(
            "status calls, 1 client",
            "/s",
            &one,
            Beside::Peer(RAW, raw.clone()),
            Goal::TimesTheRate(5.0),
        ),
        Row::new("status calls, 1 client", "/s", &one, Beside::Peer(AT_HAND, at_hand.clone()), Goal::None),
        Row::new("an answer at hand, 1 client", "/s", &at_hand, Beside::Peer(RAW, raw.clone()), Goal::None),
        Row::new("status calls, 50 clients", "/s", &many, Beside::Peer(RAW, raw), Goal::TimesTheRate(1.0)),
        Row::new("qmp passed on", "µs", &passing, Beside::Peer(RAW, raw_time), Goal::TimesTheTime(1.3)),
        Row::new("qmp passed on", "µs", &passing, Beside::Peer(RELAYED, relayed), Goal::TimesTheTime(1.3)),
    ]
}

fn ask(line: &mut Line, message: &str) -> u32 {
    line.ask(message);
    1
}

/// All of them have a call under way at once.
fn ask_all(lines: &mut [Line]) -> u32 {
    for line in &mut *lines {
        line.send(GET_STATUS);
    }
    for line in &mut *lines {
        line.receive();
    }
    u32::try_from(lines.len()).unwrap()
}

fn per_second(mut work: impl FnMut() -> u32) -> f64 {
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < COUNTED {
        done += work();
    }
    f64::from(done) / begun.elapsed().as_secs_f64()
}
