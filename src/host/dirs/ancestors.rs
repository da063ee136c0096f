//! The folders on the path to a folder: a user who can write to one of them can replace what is below it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};

use super::DirError;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;
/// What the kernel shows of an owner whom a user namespace does not know, unless it was set.
const OVERFLOW_UID: u32 = 65534;

/// Looks at every folder on the way to `path`, through links, as far as there is one: each must be root's or our own, and no other
/// user may write to it, unless it is sticky. The last one is for [`Directory`](super::Directory) to judge.
///
/// # Errors
/// [`DirError::Unsafe`] names the folder.
pub(super) fn check(path: &Path, role: &'static str, hint: impl FnOnce() -> String) -> Result<(), DirError> {
    let io = |source| DirError::Io { action: "find", path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(io)?;
    let found = match unsafe_on_the_way(&absolute, &Owners::of_this_process()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        other => other.map_err(io)?,
    };
    match found {
        Some((folder, why)) => {
            let why = format!("lies in {}, which {why}", folder.display());
            Err(DirError::Unsafe { role, path: path.to_owned(), why, hint: hint() })
        }
        None => Ok(()),
    }
}

/// Looks at a file itself, by the facts of its open descriptor: it must be root's or our own, and no other user may write to it.
///
/// # Errors
/// [`DirError::Unsafe`] says why not.
pub(super) fn check_file(
    path: &Path,
    facts: &Metadata,
    role: &'static str,
    hint: impl FnOnce() -> String,
) -> Result<(), DirError> {
    let owners = Owners::of_this_process();
    let mode = facts.mode() & 0o7777;
    let why = if !owners.are_trusted(facts.uid()) {
        format!("belongs to another user (uid {})", facts.uid())
    } else if mode & 0o002 != 0 || (mode & 0o020 != 0 && !owners.have_group(facts.gid())) {
        format!("can be written by other users (mode {mode:04o})")
    } else {
        return Ok(());
    };
    Err(DirError::Unsafe { role, path: path.to_owned(), why, hint: hint() })
}

/// Who may own what is on the way.
struct Owners {
    own: Uid,
    /// An owner whom our user namespace does not know: root of the outside, as far as this namespace can see.
    unknown: Option<u32>,
}

impl Owners {
    fn of_this_process() -> Self {
        // "inside outside length": all of them are known where there is no namespace
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let knows_all = map.is_empty() || map.split_whitespace().eq(["0", "0", "4294967295"]);
        let overflow = || {
            let set = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
            set.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW_UID)
        };
        Self { own: Uid::effective(), unknown: (!knows_all).then(overflow) }
    }

    fn are_trusted(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own.as_raw() || Some(uid) == self.unknown
    }

    /// A group without other members: root's, or the user's own where each has one.
    fn have_group(&self, gid: u32) -> bool {
        if gid == 0 {
            return true;
        }
        let user = User::from_uid(self.own).ok().flatten();
        let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
        user.zip(group).is_some_and(|(user, group)| {
            group.name == user.name && group.mem.iter().all(|member| *member == user.name)
        })
    }

    /// What is wrong with a folder, or with a link.
    fn distrust(&self, facts: &Metadata) -> Option<String> {
        let mode = facts.mode() & 0o7777;
        if !self.are_trusted(facts.uid()) {
            return Some(format!("belongs to another user (uid {})", facts.uid()));
        }
        let by_group = mode & 0o020 != 0 && !self.have_group(facts.gid());
        let by_others = mode & 0o002 != 0;
        let is_open = facts.is_dir() && mode & 0o1000 == 0 && (by_group || by_others);
        is_open.then(|| format!("can be written by other users (mode {mode:04o})"))
    }
}

/// The first folder on the way that cannot be trusted, and why; the last one does not count.
fn unsafe_on_the_way(path: &Path, owners: &Owners) -> io::Result<Option<(PathBuf, String)>> {
    let mut to_do: VecDeque<OsString> = components(path).collect();
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = to_do.pop_front() {
        if let Some(why) = owners.distrust(&at.symlink_metadata()?) {
            return Ok(Some((at, why)));
        }
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let facts = next.symlink_metadata()?;
        if !facts.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::other("too many links lead from one to the next"));
        }
        // in a sticky folder it is its owner's
        if let Some(why) = owners.distrust(&facts) {
            return Ok(Some((next, why)));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
            to_do.push_front(component);
        }
    }
    Ok(None)
}

fn components(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn checked(path: &Path) -> Result<(), String> {
        check(path, "folder", String::new).map_err(|error| error.to_string())
    }

    #[test]
    fn each_folder_on_the_way_counts_and_so_do_links() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::create_dir_all(at("links")).unwrap();
        symlink("../a/b", at("links/there")).unwrap();
        symlink(at("links/there"), at("absolute")).unwrap();
        let ways = ["a/b/c", "a/b/c/not/there/yet", "links/there/c", "absolute/c", "links/../a/b/c"];
        for way in ways {
            checked(&at(way)).unwrap();
        }
        let refused = |open: &str, ways: &[&str]| {
            for (mode, good) in [(0o777, false), (0o757, false), (0o1777, true), (0o755, true)] {
                set_mode(&at(open), mode);
                for way in ways {
                    let seen = checked(&at(way));
                    assert_eq!(seen.is_ok(), good, "{open} {mode:o} {way}: {seen:?}");
                    if let Err(why) = seen {
                        let folder = at(open).canonicalize().unwrap();
                        assert!(
                            why.contains(&format!("lies in {}, which can be", folder.display())),
                            "{why}"
                        );
                    }
                }
            }
        };
        refused("a", &ways);
        refused("a/b", &ways);
        refused("links", &["links/there/c", "absolute/c", "links/../a/b/c"]);
        // the last one is judged by others
        set_mode(&at("a/b/c"), 0o777);
        checked(&at("a/b/c")).unwrap();
        symlink("loop", at("loop")).unwrap();
        assert!(checked(&at("loop/x")).is_err());
    }

    #[test]
    #[cfg_attr(lacks = "root", ignore = "needs root")]
    fn folders_and_links_of_another_user_are_refused() {
        assert!(Uid::effective().is_root(), "only root can give a folder away");
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("theirs/ours")).unwrap();
        fs::create_dir_all(at("sticky/ours")).unwrap();
        chown(at("theirs"), Some(4242), None).unwrap();
        let why = checked(&at("theirs/ours")).unwrap_err();
        assert!(why.contains("belongs to another user (uid 4242)"), "{why}");
        // in a sticky folder only what is there counts
        set_mode(&at("sticky"), 0o1777);
        checked(&at("sticky/ours")).unwrap();
        symlink("ours", at("sticky/link")).unwrap();
        checked(&at("sticky/link/x")).unwrap();
        std::os::unix::fs::lchown(at("sticky/link"), Some(4242), None).unwrap();
        assert!(checked(&at("sticky/link/x")).is_err());
        // an owner that is unknown to our namespace looks like root
        let inside = Owners { own: Uid::effective(), unknown: Some(4242) };
        assert_eq!(unsafe_on_the_way(&at("theirs/ours"), &inside).unwrap(), None);
    }

    #[test]
    #[cfg_attr(lacks = "root", ignore = "needs root")]
    fn a_group_of_others_is_others() {
        assert!(Uid::effective().is_root(), "only root can give a folder to a group");
        let root = tempfile::tempdir().unwrap();
        let (shared, inner) = (root.path().join("shared"), root.path().join("shared/inner"));
        fs::create_dir_all(&inner).unwrap();
        set_mode(&shared, 0o775);
        checked(&inner).unwrap();
        chown(&shared, None, Some(4242)).unwrap();
        assert!(checked(&inner).is_err());
    }
}
