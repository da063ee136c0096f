//! The changes that a dead supervisor left unfinished: finishes them or rolls them back.

use serde_json::{Value, json};

use crate::qemu::block::file_node;
use crate::qemu::disk_options::disk_of_iothread;
use crate::qemu::forward::forward_remove;
use crate::qemu::media::{medium_node, medium_number};
use crate::qemu::netdev::remove as remove_netdev;
use crate::qemu::plan::{remove_image, remove_iothread};
use crate::qemu::stream_port;
use crate::qemu::{Command, ids, query};
use crate::qmp::Session;

use crate::vm::look::Seen;
use crate::vm::state::inventory::Phase;
use crate::vm::state::journal::Pending;

/// Handles unfinished changes of devices, and ends what the clients of the dead supervisor waited for. `ours`: vmrun has put the VM
/// together, so that a back-end with one of vmrun's names is vmrun's.
pub(super) async fn finish(session: &Session, pending: &Pending, seen: &mut Seen, ours: bool) {
    for id in &pending.removing {
        if let Some(entry) = seen.inventory.device_mut(id) {
            entry.phase = Phase::Removing;
        }
    }
    close_images(session, pending, seen).await;
    if ours {
        close_networks(session, pending, seen).await;
        unplug_streams(session).await;
    }
    end_probes(session, seen).await;
}

/// Closes the images of unfinished changes, and removes those that they made.
async fn close_images(session: &Session, pending: &Pending, seen: &Seen) {
    let media = seen.media();
    let orphaned_media = seen.nodes.iter().filter(|name| {
        medium_number(name).map(medium_node).as_ref() == Some(*name) && !media.contains(*name)
    });
    let half_done = pending.adding.keys().chain(&pending.removing).chain(orphaned_media);
    for id in half_done.filter(|id| !seen.present.contains(*id)) {
        if seen.nodes.contains(id) || seen.nodes.contains(&file_node(id)) {
            log::info!("closing the image of '{id}', whose change was not finished");
            for step in remove_image(id) {
                let name = step.command.arguments["node-name"].as_str().unwrap_or_default();
                if seen.nodes.contains(name) {
                    // the next takeover tries again
                    let _ = session.run(&step.command).await;
                }
            }
        }
        if let Some(Some(made)) = pending.adding.get(id) {
            made.remove();
        }
    }
    end_threads(session, &seen.present).await;
}

/// Deletes the I/O threads of disks that do not exist (any more).
async fn end_threads(session: &Session, present: &[String]) {
    let threads = session.run(&Command::new("query-iothreads", Value::Null)).await.unwrap_or_default();
    let of_disk = |thread: &Value| disk_of_iothread(thread["id"].as_str()?).map(str::to_owned);
    for disk in threads.as_array().into_iter().flatten().filter_map(of_disk) {
        if !present.contains(&disk) {
            for step in remove_iothread(&disk) {
                // the next takeover tries again
                let _ = session.run(&step.command).await;
            }
        }
    }
}

/// Closes the back-ends of cards that do not exist (any more), and descriptors that became no back-end.
async fn close_networks(session: &Session, pending: &Pending, seen: &mut Seen) {
    // the card from the start is in the journal only if it was being removed, or its cable was ever pulled
    for id in pending.cards.keys().chain(&pending.removing).filter(|id| !seen.present.contains(*id)) {
        let netdev = ids::netdev(id);
        // if there is nothing to close, QEMU refuses, which changes nothing
        for command in [remove_netdev(&netdev), Command::new("closefd", json!({ "fdname": netdev }))] {
            let _ = session.run(&command).await;
        }
        seen.inventory.forwards.retain(|bound| bound.netdev != netdev);
    }
}

/// Unplugs the ports of commands in the guest, which have lost the other end of their streams with their supervisor.
async fn unplug_streams(session: &Session) {
    let chardevs = session.run(&query::chardevs()).await.unwrap_or_default();
    let labels = chardevs.as_array().into_iter().flatten().filter_map(|chardev| chardev["label"].as_str());
    for id in labels.filter(|label| stream_port::is_id(label)) {
        // the event of the unplugged port has its chardev closed
        let _ = session.run(&stream_port::unplug(id)).await;
        // a chardev without a port; otherwise it is still in use
        let _ = session.run(&stream_port::remove_chardev(id)).await;
    }
}

/// Ends the forwards of waits for a guest's port, which ended with their supervisor.
async fn end_probes(session: &Session, seen: &mut Seen) {
    for bound in seen.inventory.forwards.extract_if(.., |bound| bound.is_probe()) {
        // the next takeover tries again
        let _ = session.run(&forward_remove(&bound.netdev, &bound.forward)).await;
    }
}
