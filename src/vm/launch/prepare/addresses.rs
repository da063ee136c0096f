//! MAC addresses of the network cards from the start, on networks where they can meet those of other VMs: a bridge, or a tap
//! device, which may be in one. Each VM there writes its address to its run directory before it checks whether another VM has it.

use crate::host::HINTED;
use crate::host::dirs::{DirError, Liveness, RunClient, RunDir, names};
use crate::spec::{MacAddress, Networking, VmName};

use crate::vm::error::ChangeError;
use crate::vm::start_error::{StartError, system};
use crate::vm::unsupervised::is_orphan;

/// An address for a card that has none yet.
pub(super) fn random() -> MacAddress {
    MacAddress::from_random(rand::random())
}

/// The address of a run that may use that of the image's own VM, since a guest that was configured for one address has no network
/// with another. If a running VM has that address, the run gets its own.
pub(super) fn choose(
    run: &RunDir,
    networking: &Networking,
    borrowed: Option<MacAddress>,
    own: impl FnOnce() -> Result<MacAddress, DirError>,
) -> Result<MacAddress, StartError> {
    let Some(mac) = borrowed else {
        let mac = own()?;
        note(run, networking, mac)?;
        return Ok(mac);
    };
    // of two VMs that start at once, both see the other and both pick another address
    let [other, ..] = &note_and_look(run, networking, mac)?[..] else { return Ok(mac) };
    log::info!(
        "this run has an address of its own, since VM '{other}' has that of the image's own VM: {mac}"
    );
    let own = own()?;
    strike_out(run, mac)?;
    note(run, networking, own)?;
    Ok(own)
}

/// Writes down an address that cannot change, and returns which VM has it already.
pub(super) fn note(run: &RunDir, networking: &Networking, mac: MacAddress) -> Result<(), StartError> {
    for other in note_and_look(run, networking, mac)? {
        log::warn!(
            target: HINTED,
            "VM '{other}' has the same network address, {mac}: where the two meet neither has a network\nhint: end one of them; \
             `--ephemeral` runs that are started after this one have addresses of their own"
        );
    }
    Ok(())
}

/// The same of a fork, whose guest has the address of its template: it is refused if a running VM has it, other forks among them.
pub(super) fn note_of_fork(run: &RunDir, networking: &Networking, mac: MacAddress) -> Result<(), StartError> {
    let [other, ..] = &note_and_look(run, networking, mac)?[..] else { return Ok(()) };
    let message = format!(
        "VM '{other}' has the network address of the template's card, {mac}: on '{networking}' neither would have a network"
    );
    let hint = format!(
        "end VM '{other}' first; or make the template with user networking, and plug a card with an address of its own into each fork: \
         `vmrun ctl nic-add {networking}`"
    );
    Err(StartError::Restore(ChangeError::unsupported(message).hint(hint)))
}

fn note_and_look(run: &RunDir, networking: &Networking, mac: MacAddress) -> Result<Vec<VmName>, StartError> {
    if !matches!(networking, Networking::Bridge(_) | Networking::Tap(_)) {
        return Ok(Vec::new());
    }
    let text = mac.to_string();
    let noted = run.read(names::MAC).unwrap_or_default();
    if !lists(&noted, &text) {
        write(run, &format!("{}{text}\n", String::from_utf8_lossy(&noted)))?;
    }
    let Some(root) = run.path().parent() else { return Ok(Vec::new()) };
    let has_it = |name: &VmName| {
        let client = RunClient::open(root, name).ok()?;
        let same = lists(&client.read(names::MAC).ok()?, &text);
        (same && (client.liveness() == Liveness::Alive || is_orphan(&client))).then_some(())
    };
    let mut all = RunDir::list(root).map_err(system("the folder of running VMs"))?;
    all.retain(|name| name != run.name() && has_it(name).is_some());
    Ok(all)
}

/// Whether an address is among those of a VM's cards, one on each line.
fn lists(noted: &[u8], address: &str) -> bool {
    String::from_utf8_lossy(noted).lines().any(|line| line == address)
}

/// Withdraws an address that this run does not use after all.
fn strike_out(run: &RunDir, mac: MacAddress) -> Result<(), StartError> {
    let (noted, text) = (run.read(names::MAC).unwrap_or_default(), mac.to_string());
    let noted = String::from_utf8_lossy(&noted);
    let rest = noted.lines().filter(|line| *line != text).map(|line| format!("{line}\n"));
    write(run, &rest.collect::<String>())
}

fn write(run: &RunDir, noted: &str) -> Result<(), StartError> {
    run.write(names::MAC, noted.as_bytes()).map_err(system("the address in the run directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_forks_of_a_template_one_is_on_a_bridge() {
        let root = tempfile::tempdir().unwrap();
        let run = |name: &str| RunDir::create(root.path(), &name.parse().unwrap()).unwrap();
        let bridge = Networking::Bridge("br0".parse().unwrap());
        let mac = MacAddress::from_random([1; 6]);
        let first = run("first");
        note_of_fork(&first, &bridge, mac).unwrap();
        // each on a network of its own
        note_of_fork(&run("user"), &Networking::default(), mac).unwrap();
        let refused = note_of_fork(&run("second"), &bridge, mac).unwrap_err();
        assert!(refused.to_string().contains("VM 'first' has the network address"), "{refused}");
        assert!(refused.hint().unwrap().contains("nic-add bridge,br0"), "{refused:?}");
        drop(first);
        note_of_fork(&run("third"), &bridge, mac).unwrap();
    }

    #[test]
    fn runs_that_could_meet_have_different_addresses() {
        let root = tempfile::tempdir().unwrap();
        let run = |name: &str| RunDir::create(root.path(), &name.parse().unwrap()).unwrap();
        let bridge = Networking::Bridge("br0".parse().unwrap());
        let tap = Networking::Tap("tap0".parse().unwrap());
        let base = MacAddress::from_random([1; 6]);
        let own = || Ok(MacAddress::from_random(rand::random()));
        let chosen =
            |run: &RunDir, networking: &Networking| choose(run, networking, Some(base), own).unwrap();

        let first = run("first");
        assert_eq!(chosen(&first, &bridge), base);
        // a network of each VM's own: addresses cannot meet there, so the guest's own address stays
        assert_eq!(chosen(&run("user"), &Networking::default()), base);
        let (second, third) = (run("second"), run("third"));
        let (a, b) = (chosen(&second, &bridge), chosen(&third, &tap));
        assert!(a != base && b != base && a != b);
        assert_eq!(second.read(names::MAC).unwrap(), format!("{a}\n").as_bytes());
        // a second card of the same VM
        note(&second, &bridge, MacAddress::from_random([2; 6])).unwrap();
        assert_ne!(
            choose(&run("sixth"), &bridge, Some(MacAddress::from_random([2; 6])), own).unwrap(),
            MacAddress::from_random([2; 6])
        );
        // a run without an address to borrow gets its own
        assert_ne!(choose(&run("fourth"), &bridge, None, own).unwrap(), base);
        // a dead VM has no address
        drop(first);
        assert_eq!(chosen(&run("fifth"), &bridge), base);
        drop((second, third));
    }
}
