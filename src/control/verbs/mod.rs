//! The methods of the protocol, one file for each command of `vmrun ctl`.
//!
//! A file has everything about its methods on this side of the socket: the name, the parameters, the reply, what a call uses its
//! connection for, and how it runs. `ALL` is the only list of them; the dispatcher, the client, the fuzzer and the tests use it.
//! `proto/io.vmrun.Machine.varlink` is the source of truth, and a test compares the list with it.

mod agent;
mod console;
mod copy_from;
mod copy_to;
mod device_add;
mod device_remove;
mod disk_add;
mod disk_list;
mod disk_remove;
mod disk_resize;
mod disk_throttle;
mod events;
mod exec;
mod freeze;
mod freeze_fs;
mod hmp;
mod link;
mod media_change;
mod media_eject;
mod method;
mod nic_add;
mod nic_list;
mod nic_remove;
mod one_reply;
mod pause;
mod port_add;
mod port_list;
mod port_remove;
mod powerdown;
mod progress;
mod qmp;
mod reboot;
mod removal;
mod reset;
mod resume;
mod save;
mod screenshot;
mod send_key;
mod set_time;
mod shutdown;
mod snapshot_delete;
mod snapshot_list;
mod snapshot_load;
mod snapshot_save;
mod stats;
mod status;
mod thaw_fs;
mod type_text;
mod usb_add;
mod usb_list;
mod usb_remove;
mod wait;

pub(super) use method::{EndedVm, Entry, Replies, Run, Uploads};
pub use method::{Method, Stream};

/// Every file with its methods. A `change` is one change by the VM's owner, a `call` is anything else with one reply, a `stream`
/// returns many replies.
macro_rules! methods {
    ($($file:ident: $($kind:ident $name:ident),+;)*) => {
        // the methods and their replies
        $(pub use $file::*;)*

        /// All methods.
        pub(super) const ALL: &[Entry] = &[$($(Entry::$kind::<$file::$name>()),+),*];

        /// Calls a visitor with the type of every method, for tests of all of them.
        pub fn visit(visitor: &mut impl Visitor) {
            $($(visitor.visit::<$file::$name>();)+)*
        }
    };
}

methods! {
    status: call GetStatus;
    stats: call GetStats, stream WatchStats;
    usb_list: call ListUsb;
    usb_add: change AddUsb;
    usb_remove: change RemoveUsb;
    port_list: call ListForwards;
    port_add: change AddForward;
    port_remove: change RemoveForward;
    nic_list: call ListNics;
    nic_add: change AddNic;
    nic_remove: change RemoveNic;
    link: change SetLink;
    disk_list: call ListDisks;
    disk_add: change AddDisk;
    disk_remove: call RemoveDisk;
    disk_resize: change ResizeDisk;
    disk_throttle: change ThrottleDisk;
    media_change: change ChangeMedia;
    media_eject: change EjectMedia;
    device_add: change AddDevice;
    device_remove: call RemoveDevice;
    save: stream Save;
    freeze: stream Freeze;
    snapshot_save: stream SaveSnapshot;
    snapshot_load: change LoadSnapshot;
    snapshot_list: change ListSnapshots;
    snapshot_delete: change DeleteSnapshot;
    pause: change Pause;
    resume: change Resume;
    reset: change Reset;
    reboot: call Reboot;
    powerdown: change Powerdown;
    shutdown: call Shutdown;
    wait: call Wait;
    events: stream Events;
    exec: stream Exec, call WriteExecInput;
    copy_to: call StartGuestFile, call WriteGuestFile, call FinishGuestFile;
    copy_from: stream ReadGuestFile;
    set_time: call SetTime;
    freeze_fs: call FreezeFilesystems;
    thaw_fs: call ThawFilesystems;
    agent: call AgentCommand;
    screenshot: call Screenshot;
    send_key: call SendKeys;
    type_text: call TypeText;
    console: stream ReadConsole, call WriteConsole, call ResizeConsole;
    qmp: change Qmp;
    hmp: change Hmp;
}

/// Does the same with every method; see [`visit`].
pub trait Visitor {
    /// Visits one method.
    fn visit<M: Method>(&mut self);
}

/// The names of all methods, without the interface.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|entry| entry.name)
}

/// The method of this name, without the interface.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}
