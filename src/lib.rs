//! vmrun starts QEMU virtual machines and changes them while they run. [`Machine`] is a VM for programs: a test launches one, changes
//! it, looks at it, and it is gone when the test is.
//!
//! ```no_run
//! use std::time::Duration;
//! use vmrun::{Error, Machine};
//!
//! # /*
//! #[tokio::test]
//! # */
//! async fn a_disk_that_is_plugged_in_can_be_used() -> Result<(), Error> {
//!     let vm = Machine::builder("debian.qcow2").ephemeral().mem("2G").launch().await?;
//!     vm.wait("agent", Duration::from_secs(60)).await?;
//!
//!     let disk = vm.add_disk("data.qcow2,size=1G").await?;
//!     let listed = vm.exec(["lsblk", "--noheadings"]).await?;
//!     assert!(listed.success(), "{listed}");
//!     vm.remove_disk(&disk.id, Duration::from_secs(30)).await?;
//!
//!     vm.write_file("/etc/motd", "hello\n").await?;
//!     assert_eq!(vm.read_text("/etc/motd").await?, "hello\n");
//!
//!     let outcome = vm.shutdown(Duration::from_secs(30)).await?;
//!     assert_eq!(outcome.exit_code, 0, "{outcome}");
//!     Ok(())
//! }
//! ```
//!
//! - Where the test panics, what the console printed last is shown with it. The VM is killed in any case; nothing is left behind.
//! - [`blocking`] has the same for tests without a runtime.
//! - [`Machine::attach`] connects to a VM that runs already, such as one of `vmrun qemu`; `vmrun ls` and `vmrun ctl` show and change
//!   one that a test has launched.
//! - QEMU has to be installed; the program `vmrun` has not.
//!
//! What is not in this documentation belongs to the program, and may change at any time.

// its comments are the texts of `--help`, with `<arch>` and the like
#[allow(rustdoc::invalid_html_tags)]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod control;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod host;
#[doc(hidden)]
pub mod machine;
#[doc(hidden)]
pub mod qemu;
#[doc(hidden)]
pub mod qmp;
pub mod spec;
#[doc(hidden)]
pub mod vm;

pub use control::client::{ClientError, WireError};
pub use control::{verbs, wire};
pub use machine::{Builder, Console, Copied, Error, Events, Heard, Machine, blocking};
pub use spec::Request;
pub use vm::{Ending, Exec, Executed, Outcome, Screenshot};
