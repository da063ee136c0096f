//! Media of CD-ROM drives. The new medium is opened before the old one is touched, so a bad path changes nothing.

use serde_json::json;

use super::plan::Step;
use super::{Command, block};

/// Of vmrun's own alone, since a node with it is closed when no device uses it: a caller of `vmrun wrap` has nodes with any other name.
const FAMILY: &str = "vmrun-medium-";

/// The name of the block nodes of the `number`th medium that a VM is given while it runs; the owner counts.
/// (A drive's first medium has the drive's own id.)
pub fn medium_node(number: u32) -> String {
    format!("{FAMILY}{number}")
}

/// The number in the name of a block node of such a medium, or of its file.
///
/// ```
/// assert_eq!(vmrun::qemu::media::medium_number("vmrun-medium-3"), Some(3));
/// assert_eq!(vmrun::qemu::media::medium_number("vmrun-medium-3.file"), Some(3));
/// assert_eq!(vmrun::qemu::media::medium_number("medium3"), None);
/// ```
pub fn medium_number(node: &str) -> Option<u32> {
    let number = node.strip_prefix(FAMILY)?;
    number.strip_suffix(".file").unwrap_or(number).parse().ok()
}

/// The medium in a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Medium<'a> {
    /// The name of its block nodes.
    pub node: &'a str,
    /// They are not vmrun's, and stay when the medium is taken out.
    pub foreign: bool,
}

impl Medium<'_> {
    /// Closes its image. For when it is out of the drive for good: QEMU gets a plan in one go, and would close it even if putting
    /// another in its place has failed.
    pub fn discard(&self) -> Vec<Step> {
        match self.foreign {
            true => Vec::new(),
            false => block::remove_image(self.node).into_iter().map(Step::new).collect(),
        }
    }
}

/// Puts an image that is open as node `new` into a drive, in place of the medium `old` (none if the drive is empty).
///
/// Without `force`, a guest that has locked the tray is asked to open it, and the step fails ("locked").
pub fn media_change(drive: &str, old: Option<Medium>, new: &str, force: bool) -> Vec<Step> {
    let mut steps = vec![open_tray(drive, force)];
    steps.extend(old.map(|old| remove_medium(drive, old.node)));
    steps.push(Step::new(insert(drive, new)).undo(remove(drive)));
    steps.push(Step::new(close(drive)).undo(open(drive, true)));
    steps
}

/// Takes the medium `old` out of a drive and leaves the tray open, as a person would.
pub fn media_eject(drive: &str, old: Option<Medium>, force: bool) -> Vec<Step> {
    let mut steps = vec![open_tray(drive, force)];
    if let Some(old) = old {
        steps.push(remove_medium(drive, old.node));
    }
    steps
}

fn open_tray(drive: &str, force: bool) -> Step {
    Step::new(open(drive, force)).undo(close(drive))
}

fn remove_medium(drive: &str, old: &str) -> Step {
    Step::new(remove(drive)).undo(insert(drive, old))
}

fn open(drive: &str, force: bool) -> Command {
    Command::new("blockdev-open-tray", json!({ "id": drive, "force": force }))
}

fn close(drive: &str) -> Command {
    Command::new("blockdev-close-tray", json!({ "id": drive }))
}

fn remove(drive: &str) -> Command {
    Command::new("blockdev-remove-medium", json!({ "id": drive }))
}

fn insert(drive: &str, node: &str) -> Command {
    Command::new("blockdev-insert-medium", json!({ "id": drive, "node-name": node }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|step| step.command.execute.as_str()).collect()
    }

    fn ours(node: &str) -> Medium<'_> {
        Medium { node, foreign: false }
    }

    #[test]
    fn a_foreign_medium_is_taken_out_and_left_alone() {
        let theirs = Medium { node: "theirs", foreign: true };
        assert_eq!(
            names(&media_eject("cd0", Some(theirs), true)),
            ["blockdev-open-tray", "blockdev-remove-medium"]
        );
    }

    #[test]
    fn the_old_one_is_not_closed_with_it() {
        let steps = media_change("cd0", Some(ours("cd0")), &medium_node(1), false);
        assert_eq!(
            names(&steps),
            ["blockdev-open-tray", "blockdev-remove-medium", "blockdev-insert-medium", "blockdev-close-tray"]
        );
        assert_eq!(steps[2].command.arguments["node-name"], "vmrun-medium-1");
        assert_eq!(steps[1].undo.as_ref().unwrap().arguments["node-name"], "cd0");
        // an empty drive has nothing to take out
        assert_eq!(media_change("cd0", None, "medium2", true).len(), 3);
    }

    #[test]
    fn eject_leaves_the_tray_open() {
        let steps = media_eject("cd0", Some(ours("medium1")), false);
        assert_eq!(names(&steps), ["blockdev-open-tray", "blockdev-remove-medium"]);
        assert_eq!(names(&ours("medium1").discard()), ["blockdev-del", "blockdev-del"]);
        assert!(Medium { node: "theirs", foreign: true }.discard().is_empty());
        assert_eq!(media_eject("cd0", None, false).len(), 1);
    }
}
