//! The methods of the protocol with the types that travel, so that no caller can mix them up.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::permits::Use;
use super::wire;

/// A method of `io.vmrun.Machine`.
pub trait Method {
    /// Its name without the interface.
    const NAME: &'static str;
    /// What it takes.
    type Parameters: Serialize + Debug + Send;
    /// What it answers with, once or as a stream.
    type Reply: DeserializeOwned + Send;
}

/// A method that is called with `more` and answers with many replies.
pub trait Stream: Method {}

/// Whether a method, named without the interface, is one of these.
pub(super) fn is_stream(method: &str) -> bool {
    STREAMS.contains(&method)
}

/// What a method, named without the interface, needs its caller's connection for.
pub(super) fn needed_for(method: &str) -> Use {
    match method {
        // a VM can always be looked at, and be ended
        GetStatus::NAME
        | ListUsb::NAME
        | ListForwards::NAME
        | ListDisks::NAME
        | ListNics::NAME
        | GetStats::NAME
        | ListSnapshots::NAME
        | Shutdown::NAME => Use::Short,
        Wait::NAME
        | StartGuestFile::NAME
        | WriteGuestFile::NAME
        | FinishGuestFile::NAME
        | ResizeConsole::NAME
        | SetTime::NAME
        | Reboot::NAME
        | AgentCommand::NAME => Use::Wait,
        method if is_stream(method) => Use::Wait,
        _ => Use::Change,
    }
}

/// Whether a call may be made again when the supervisor has died before it answered: it asks only, or what it does is the same when
/// it is done twice.
pub(super) fn is_repeatable(method: &str) -> bool {
    matches!(
        method,
        GetStatus::NAME
            | ListUsb::NAME
            | ListForwards::NAME
            | ListDisks::NAME
            | ListNics::NAME
            | ListSnapshots::NAME
            | GetStats::NAME
            | WatchStats::NAME
            | Screenshot::NAME
            | Pause::NAME
            | Resume::NAME
            | SetLink::NAME
            | Shutdown::NAME
            | Wait::NAME
            | ResizeConsole::NAME
            | SetTime::NAME
            | Events::NAME
            | ReadConsole::NAME
    )
}

macro_rules! methods {
    (name of $kind:ident $name:ident) => { stringify!($name) };
    ($($(#[$kind:ident])? $name:ident($parameters:ident) -> $reply:ident;)*) => {
        /// Names of the methods that are to be called with `more`.
        const STREAMS: &[&str] = &[$($(methods!(name of $kind $name),)?)*];
    $(
        #[doc = concat!("`", stringify!($name), "`, as the protocol's description has it.")]
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl Method for $name {
            const NAME: &'static str = stringify!($name);
            type Parameters = wire::$parameters;
            type Reply = wire::$reply;
        }

        $(impl $kind for $name {})?
    )*};
}

methods! {
    GetStatus(Empty) -> StatusReply;
    ListUsb(Empty) -> UsbList;
    AddUsb(AddUsb) -> UsbReply;
    RemoveUsb(RemoveUsb) -> Nothing;
    ListForwards(Empty) -> ForwardList;
    AddForward(AddForward) -> ForwardReply;
    RemoveForward(RemoveForward) -> Nothing;
    ListDisks(Empty) -> DiskList;
    AddDisk(AddDisk) -> DiskReply;
    RemoveDisk(RemoveDisk) -> DiskRemoved;
    ResizeDisk(ResizeDisk) -> DiskReply;
    ChangeMedia(ChangeMedia) -> DiskReply;
    EjectMedia(EjectMedia) -> DiskReply;
    ThrottleDisk(ThrottleDisk) -> DiskReply;
    ListNics(Empty) -> NicList;
    AddNic(AddNic) -> NicReply;
    RemoveNic(Remove) -> Removed;
    SetLink(SetLink) -> NicReply;
    GetStats(Empty) -> StatsReply;
    #[Stream] WatchStats(WatchStats) -> StatsReply;
    AddDevice(AddDevice) -> DeviceReply;
    RemoveDevice(RemoveDisk) -> DiskRemoved;
    Pause(Empty) -> Nothing;
    Resume(Empty) -> Nothing;
    Reset(Empty) -> Nothing;
    Powerdown(Empty) -> Nothing;
    Shutdown(Shutdown) -> OutcomeReply;
    Wait(Wait) -> WaitReply;
    #[Stream] Events(Events) -> EventReply;
    #[Stream] ReadConsole(ReadConsole) -> ConsoleReply;
    WriteConsole(WriteConsole) -> Nothing;
    ResizeConsole(ResizeConsole) -> ResizeConsoleReply;
    SetTime(SetTime) -> SetTimeReply;
    Reboot(Reboot) -> RebootReply;
    AgentCommand(AgentCommand) -> AgentCommandReply;
    #[Stream] Exec(Exec) -> ExecReply;
    StartGuestFile(StartGuestFile) -> GuestFileReply;
    WriteGuestFile(WriteGuestFile) -> Nothing;
    FinishGuestFile(FinishGuestFile) -> FinishedReply;
    #[Stream] ReadGuestFile(ReadGuestFile) -> ReadGuestFileReply;
    #[Stream] Save(Save) -> SaveReply;
    #[Stream] SaveSnapshot(SaveSnapshot) -> SaveSnapshotReply;
    LoadSnapshot(NamedSnapshot) -> SnapshotReply;
    DeleteSnapshot(NamedSnapshot) -> SnapshotReply;
    ListSnapshots(Empty) -> SnapshotList;
    Screenshot(Empty) -> ScreenshotReply;
    SendKeys(SendKeys) -> Nothing;
    TypeText(TypeText) -> Nothing;
    Qmp(Qmp) -> QmpReply;
    Hmp(Hmp) -> HmpReply;
}
