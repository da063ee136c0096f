//! The traits of the protocol's methods, and how the dispatcher runs them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::vm::{Change, ChangeError, Done, Handle, RunRecord, Upload};

use super::super::error::WireError;
use super::super::frame::Frame;
use super::super::parameters::read;
use super::super::permits::Use;

/// A method of `io.vmrun.Machine`. Its fields are its parameters.
pub trait Method: Serialize + DeserializeOwned + PartialEq + Debug + Send {
    /// Its name without the interface.
    const NAME: &'static str;
    /// Whether a call may be repeated when the supervisor has died before it replied: it is a query, or executing it twice has the
    /// same effect as once.
    const REPEATABLE: bool;
    /// Its reply, once or as a stream.
    type Reply: Serialize + DeserializeOwned + PartialEq + Debug + Send + 'static;
}

/// A method that is called with `more` and returns many replies.
pub trait Stream: Method {
    /// Changes the parameters of a call that is repeated after some replies were read.
    fn goes_on(_parameters: &mut Value) {}
}

/// Declares a method: its parameters (those after the `;` are optional), its reply, and `repeatable` if it is. A supervisor must
/// not ignore an unknown parameter.
macro_rules! method {
    ($(#[$doc:meta])* $name:ident { $($fields:tt)* } -> $reply:ty) => {
        $crate::control::verbs::method::method! { $(#[$doc])* $name { $($fields)* } -> $reply, repeatable: false }
    };
    ($(#[$doc:meta])* $name:ident { $($fields:tt)* } -> $reply:ty, repeatable) => {
        $crate::control::verbs::method::method! { $(#[$doc])* $name { $($fields)* } -> $reply, repeatable: true }
    };
    ($(#[$doc:meta])* $name:ident { $($fields:tt)* } -> $reply:ty, repeatable: $repeatable:literal) => {
        $crate::control::wire::message! { [serde(deny_unknown_fields)] $(#[$doc])* $name { $($fields)* } }

        impl $crate::control::verbs::Method for $name {
            const NAME: &'static str = stringify!($name);
            const REPEATABLE: bool = $repeatable;
            type Reply = $reply;
        }
    };
}
pub(super) use method;

/// A method that is one change by the VM's owner.
pub(super) trait ChangeMethod: Method {
    /// What a call uses its connection for.
    const NEEDS: Use = Use::Change;

    /// The change, from the parameters.
    fn change(self) -> Result<Change, ChangeError>;

    /// The reply, from the result of the change.
    fn reply(done: Done) -> Result<Self::Reply, ChangeError>;
}

/// Any other method with one reply.
pub(super) trait CallMethod: Method {
    /// What a call uses its connection for.
    const NEEDS: Use;

    /// Runs it.
    fn run(
        self,
        vm: &Handle,
        uploads: &mut Uploads,
    ) -> impl Future<Output = Result<Self::Reply, WireError>> + Send;

    /// The reply of a VM that has ended; `None`: an error with its outcome.
    fn after_the_end(self, _ended: &EndedVm<'_>) -> Option<Self::Reply> {
        None
    }
}

/// A method that returns many replies. A call uses its connection for as long as the stream lasts.
pub(super) trait StreamMethod: Stream {
    /// Starts it: everything that happens from now on is in the stream.
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<Self::Reply, WireError>>, WireError>;

    /// The one reply to a call without `more`. Most such calls are errors; invalid parameters are reported first, as for any other
    /// method.
    fn once(self, vm: &Handle) -> impl Future<Output = Result<Self::Reply, WireError>> + Send {
        let started = self.start(vm).map(drop);
        async move { started.and(Err(WireError::expected_more())) }
    }

    /// The replies of a VM that has ended; `None`: an error with its outcome.
    fn after_the_end(self, _ended: &EndedVm<'_>) -> Option<Vec<Self::Reply>> {
        None
    }
}

/// A VM that has ended, with its record.
pub(in super::super) struct EndedVm<'a> {
    pub(in super::super) record: &'a RunRecord,
    /// It ended so recently that a call counts as made in time.
    pub(in super::super) is_recent: bool,
}

/// How long a removal waits for the guest by default.
pub(super) const REMOVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// The files that a connection is writing into the guest. Unfinished ones are removed when it ends.
pub(in super::super) type Uploads = HashMap<i64, Upload>;

/// The encoded replies of a stream.
pub(in super::super) type Replies = BoxStream<'static, Result<Value, WireError>>;

type Once = for<'a> fn(Value, &'a Handle, &'a mut Uploads) -> BoxFuture<'a, Result<Frame, WireError>>;
type Start = fn(Value, &Handle) -> Result<Replies, WireError>;
type AfterTheEnd = fn(Value, &EndedVm<'_>) -> Option<Vec<Value>>;

/// A method as the dispatcher sees it.
pub(in super::super) struct Entry {
    pub(in super::super) name: &'static str,
    /// What a call uses its connection for.
    pub(in super::super) needs: Use,
    pub(in super::super) run: Run,
    /// The replies from the record of a VM that has ended, if there are any.
    pub(in super::super) after_the_end: AfterTheEnd,
}

/// How a method runs.
pub(in super::super) enum Run {
    /// By one change of the VM, with its reply.
    Change(fn(Value) -> Result<Change, WireError>, fn(Done) -> Result<Frame, WireError>),
    /// By other code, with one reply.
    Once(Once),
    /// By other code, with many replies; without `more`, with one.
    Stream(Start, Once),
}

impl Entry {
    pub(super) const fn change<M: ChangeMethod>() -> Self {
        let change: fn(Value) -> Result<Change, WireError> =
            |parameters| Ok(read::<M>(parameters)?.change()?);
        let run = Run::Change(change, |done| Frame::of(&M::reply(done)?));
        Self { name: M::NAME, needs: M::NEEDS, run, after_the_end: |_, _| None }
    }

    pub(super) const fn call<M: CallMethod>() -> Self {
        let run: Once = |parameters, vm, uploads| {
            Box::pin(async move { Frame::of(&read::<M>(parameters)?.run(vm, uploads).await?) })
        };
        let after_the_end: AfterTheEnd = |parameters, ended| {
            let reply = read::<M>(parameters).ok()?.after_the_end(ended)?;
            Some(vec![serde_json::to_value(reply).ok()?])
        };
        Self { name: M::NAME, needs: M::NEEDS, run: Run::Once(run), after_the_end }
    }

    pub(super) const fn stream<M: StreamMethod>() -> Self {
        let start: Start = |parameters, vm| {
            let replies = read::<M>(parameters)?.start(vm)?;
            let as_value =
                |reply| serde_json::to_value(reply).map_err(|error| ChangeError::host(error).into());
            Ok(replies.map(move |reply| reply.and_then(as_value)).boxed())
        };
        let once: Once =
            |parameters, vm, _| Box::pin(async move { Frame::of(&read::<M>(parameters)?.once(vm).await?) });
        let after_the_end: AfterTheEnd = |parameters, ended| {
            let replies = read::<M>(parameters).ok()?.after_the_end(ended)?;
            replies.into_iter().map(|reply| serde_json::to_value(reply).ok()).collect()
        };
        Self { name: M::NAME, needs: Use::Wait, run: Run::Stream(start, once), after_the_end }
    }
}
