//! Port forwards of user networking. QEMU (up to 11.1) has them in its human monitor only.

use super::Command;
use super::plan::{Check, Step};
use crate::spec::{Forward, Protocol};

fn protocol(forward: &Forward) -> &'static str {
    match forward.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// The rule as `hostfwd` has it, e.g. `tcp:127.0.0.1:8080-:80`.
pub(super) fn rule(forward: &Forward) -> String {
    format!("{}:{}:{}-:{}", protocol(forward), forward.address, forward.host, forward.guest)
}

/// `hostfwd_add`: an empty text is success, any other says what is wrong.
/// With host port 0, `info usernet` tells the port.
pub fn forward_add(netdev: &str, forward: &Forward) -> Command {
    Command::hmp(&format!("hostfwd_add {netdev} {}", rule(forward)))
}

/// `hostfwd_remove`, which goes by the host's side only: the host port must be the real one, not 0.
/// Answers `host forwarding rule for … removed` or `… not found`.
pub fn forward_remove(netdev: &str, forward: &Forward) -> Command {
    let Forward { address, host, .. } = forward;
    Command::hmp(&format!("hostfwd_remove {netdev} {}:{address}:{host}", protocol(forward)))
}

/// The plan of a forward. The undo is there only if the host port is known beforehand.
pub fn add_forward(netdev: &str, forward: &Forward) -> Vec<Step> {
    let undo = (forward.host != 0).then(|| forward_remove(netdev, forward));
    vec![Step { command: forward_add(netdev, forward), undo, check: Check::HmpSilent }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::forward;

    fn line(command: Command) -> String {
        assert_eq!(command.execute, "human-monitor-command");
        command.arguments["command-line"].as_str().unwrap().to_owned()
    }

    #[test]
    fn speaks_hmp() {
        let web = forward(8080, 80);
        assert_eq!(line(forward_add("net0", &web)), "hostfwd_add net0 tcp:127.0.0.1:8080-:80");
        assert_eq!(line(forward_remove("net0", &web)), "hostfwd_remove net0 tcp:127.0.0.1:8080");
        let dns = Forward { protocol: Protocol::Udp, address: [0, 0, 0, 0].into(), ..forward(0, 53) };
        assert_eq!(line(forward_add("lan.net", &dns)), "hostfwd_add lan.net udp:0.0.0.0:0-:53");
    }

    #[test]
    fn an_unknown_port_cannot_be_undone() {
        assert!(add_forward("net0", &forward(0, 22))[0].undo.is_none());
        assert!(add_forward("net0", &forward(8080, 80))[0].undo.is_some());
    }
}
