//! One running VM: its preparation and start, its owner task, its changes, its console, its end.
//!
//! ```text
//! Request ──prepare──► Prepared ──start──► Running ──run──► Outcome
//!                                             │
//!          Handle (requests in, replies out) ─┴─ Console (output to read, input to write)
//! ```

mod bus;
mod change;
mod changes;
pub mod console;
mod error;
mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guest;
mod handle;
mod ladder;
mod launch;
mod look;
mod owner;
mod parts;
mod process;
mod running;
mod signals;
mod start_error;
mod state;
pub mod stats;
mod steps;
mod takeover;
#[cfg(test)]
mod tests;
mod unsupervised;
mod wait;

pub use bus::{Bus, BusEvent, Record, Subscriber, WatchedState};
pub use change::{Change, DeviceKind, Done, ForwardPattern, Freeze, Progress, SnapshotChange};
pub use error::{ChangeError, ErrorChain, ErrorKind};
pub use guest::boot_watch::NothingToBoot;
pub use guest::clock::GuestClock;
pub use guest::console_size::ResizedBy;
pub use guest::exec::{Exec, Executed};
pub use guest::files::{Checked, Download, Upload};
pub use guest::reboot::{Reboot, Rebooted};
pub use guest::screen::Screenshot;
pub use guest::streams::Piece;
pub use handle::{Handle, ShutdownOptions};
pub use launch::prepare::{Prepared, check_template, dry_run, prepare, template_source};
pub use launch::start::{Launch, ProcessRole, start};
pub use process::sockets::ControlSockets;
pub use running::Running;
pub use signals::{ONE_REQUEST, Signals};
pub use start_error::StartError;
pub use state::facts::Facts;
pub use state::inventory::{Bound, DiskFacts, Entry, Kind, NicFacts, Phase};
pub use state::origin::{Description, Origin, Wrapped};
pub use state::outcome::{Ending, Outcome};
pub use state::record::RunRecord;
pub use state::run_state::RunState;
pub use state::status::{Published, Status};
pub use stats::Present;
pub use takeover::adopt::{Adopted, adopt, claim};
pub use takeover::wrap::{Naming, Wrapping, wrap};
pub use unsupervised::{await_end, clean, is_orphan};
pub use wait::{CameTrue, Wait};
