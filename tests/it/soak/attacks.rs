//! Clients that are none: of the control socket and of the shared QMP socket.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::support::chance::Chance;

const CALL: &[u8] = b"{\"method\":\"io.vmrun.Machine.GetStatus\"}\0";
const STREAM: &[u8] = b"{\"method\":\"io.vmrun.Machine.Events\",\"more\":true}\0";
const CHANGE: &[u8] =
    b"{\"method\":\"io.vmrun.Machine.AddUsb\",\"parameters\":{\"selector\":\"usb-mouse\",\"id\":\"soak-usb0\"}}\0";
const QMP: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-block\",\"id\":[1,{}]}\n";

/// Attacks once; the service may hang up. Returns which attack it was.
pub(super) fn any(chance: &mut Chance, folder: &Path) -> String {
    let socket = if chance.below(3) == 0 { "qmp-shared" } else { "control" };
    let Ok(mut stream) = UnixStream::connect(folder.join(socket)) else {
        return "nobody listens".to_owned();
    };
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let garbage: Vec<u8> = (0..chance.below(5000)).map(|_| chance.below(256) as u8).collect();
    let number = chance.below(9);
    let _ = match number {
        0 => stream.write_all(&garbage),
        1 => stream.write_all(&CALL[..chance.below(CALL.len() as u64) as usize]),
        2 => stream.write_all(&CALL.repeat(1 + chance.below(200) as usize)),
        // gone before the answer, and with the change under way
        3 => stream.write_all(CHANGE),
        4 => stream.write_all(STREAM),
        5 => stream.write_all(&vec![b'['; 2 << 20]),
        6 => stream.write_all(QMP),
        7 => stream.write_all(&[&garbage[..], b"\n\0", CALL].concat()),
        _ => {
            let all: Vec<_> = (0..50).map_while(|_| UnixStream::connect(folder.join(socket)).ok()).collect();
            drop(all);
            Ok(())
        }
    };
    format!("{number} of {socket}")
}
