//! What `ctl wait` can wait for.

/// A condition of `ctl wait` and `--wait`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `running`: the guest's processors run.
    Running,
    /// `paused`.
    Paused,
    /// `exit`: QEMU has ended.
    Exit,
    /// `console=REGEX`: a line of the console matches. The expression has been compiled once to check it.
    Console(String),
    /// `agent`: the guest agent answers.
    Agent,
    /// `port=GUEST`: something in the guest accepts TCP connections on this port.
    Port(u16),
    /// `event=NAME`: a QMP event (or one of vmrun's own) of this name comes.
    Event(String),
}
