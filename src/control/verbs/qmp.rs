//! `qmp`.

use serde_json::Value;

use crate::control::wire;
use crate::qemu::{Command, MalformedCommand};
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Runs any command of QEMU's monitor.
    Qmp { command: Value; } -> QmpReply
}

wire::replies! {
    /// Reply of `Qmp`.
    QmpReply { value: Value; }
}

impl ChangeMethod for Qmp {
    fn change(self) -> Result<Change, ChangeError> {
        let invalid = |why: String| ChangeError::invalid("command", why);
        let Value::Object(mut members) = self.command else {
            let example = "{\"execute\": \"query-block\"}";
            return Err(invalid(format!("a QMP command is an object such as {example}")));
        };
        // a client's own id has no meaning on the shared session
        members.remove("id");
        let command = Command::from_members(members).map_err(|error| {
            invalid(match error {
                MalformedCommand::NoExecute => "a QMP command needs a string 'execute'".to_owned(),
                MalformedCommand::Arguments => "'arguments' must be an object".to_owned(),
                MalformedCommand::Unexpected(other) => format!("a QMP command has no member '{other}'"),
            })
        })?;
        Ok(Change::Qmp(command))
    }

    fn reply(done: Done) -> Result<QmpReply, ChangeError> {
        Ok(QmpReply { value: done.value()? })
    }
}
