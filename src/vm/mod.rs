//! One running VM: how it is prepared and started, its owner task, its changes, its console, its end.
//!
//! ```text
//! Request ──prepare──► Prepared ──start──► Running ──run──► Outcome
//!                                             │
//!          Handle (requests in, replies out) ─┴─ Console (output to read, input to write)
//! ```

mod adopt;
mod agent;
mod boot_watch;
mod bus;
pub mod change;
mod changes;
pub mod console;
mod error;
mod events;
mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guest;
mod handle;
mod image_holder;
mod images;
mod inventory;
mod journal;
mod ladder;
mod nics;
mod open_files;
mod opened;
mod outcome;
mod owner;
mod plugged;
mod port_probe;
mod prepare;
mod present;
mod process;
mod rebuild;
mod record;
mod resets;
mod running;
mod saving;
mod screen;
mod signals;
mod snapshots;
mod start;
mod start_error;
mod state;
pub mod stats;
mod status;
mod steps;
mod taken;
mod takeover;
#[cfg(test)]
mod tests;
mod turns;
mod wait;
mod wrap;

pub use adopt::{Adopted, adopt, claim, clean, is_orphan};
pub use boot_watch::NothingToBoot;
pub use bus::{Bus, Heard, Listener, Pulse, Record};
pub use change::{Change, Done, ForwardPattern, Removable};
pub use error::{ChangeError, ErrorKind, Why};
pub use facts::{Facts, Wrapped};
pub use guest::clock::GuestClock;
pub use guest::console_size::ResizedBy;
pub use guest::exec::{Exec, Executed};
pub use guest::files::{Checked, Download, Upload, WRITE_PIECE};
pub use guest::reboot::{Reboot, Rebooted};
pub use handle::{Handle, ShutdownOptions};
pub use inventory::{Bound, DiskFacts, Entry, Kind, NicFacts, Phase};
pub use outcome::{Ending, Outcome};
pub use prepare::{Doors, Prepared, dry_run, prepare};
pub use present::Present;
pub use record::RunRecord;
pub use running::Running;
pub use screen::Screenshot;
pub use signals::Signals;
pub use snapshots::{Progress, SnapshotChange};
pub use start::{Launch, start};
pub use start_error::StartError;
pub use state::RunState;
pub use status::{Published, Status};
pub use wait::{CameTrue, Wait};
pub use wrap::{Naming, Wrapping, wrap};
