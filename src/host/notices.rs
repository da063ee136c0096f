//! What is told once in each boot of this machine, rather than at every start of a VM.

use std::path::Path;

use super::dirs::{StoreEnvironment, user_store};

/// That the acceleration does not work: the file that remembers it.
pub const ACCELERATION: &str = "notice-acceleration";

/// Identifies the boot of this machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Whether this user was not told it in this boot yet; from now on it counts as told. Where that cannot be remembered, it is new.
pub fn is_new(environment: &StoreEnvironment, notice: &str) -> bool {
    is_new_in(environment, notice, Path::new(BOOT_ID))
}

fn is_new_in(environment: &StoreEnvironment, notice: &str, boot_id: &Path) -> bool {
    let Ok(boot) = std::fs::read(boot_id) else { return true };
    let Ok(store) = user_store(environment) else { return true };
    if store.read(notice).is_ok_and(|told| told == boot) {
        return false;
    }
    // an error: told again at the next start
    let _ = store.write(notice, &boot);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_new_once_in_each_boot() {
        let folder = tempfile::tempdir().unwrap();
        let boot = folder.path().join("boot_id");
        let environment = StoreEnvironment::from_env_or(Some(&folder.path().join("state")));
        let is_new = |notice| is_new_in(&environment, notice, &boot);
        std::fs::write(&boot, "one\n").unwrap();
        assert_eq!([is_new("a"), is_new("a"), is_new("b")], [true, false, true]);
        std::fs::write(&boot, "two\n").unwrap();
        assert_eq!([is_new("a"), is_new("a")], [true, false]);
        std::fs::remove_file(&boot).unwrap();
        assert_eq!([is_new("a"), is_new("a")], [true, true]);
    }
}
