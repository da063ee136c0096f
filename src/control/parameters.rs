//! Parses the parameters of a call: first as JSON of the right shape, then each by its own grammar.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::spec::Size;
use crate::vm::ChangeError;

use super::error::WireError;

/// The parameters of a call; on failure, Varlink's own error with the parameter's name.
pub(super) fn read<T: DeserializeOwned>(parameters: Value) -> Result<T, WireError> {
    serde_path_to_error::deserialize(object(parameters)?).map_err(|error| at_fault(&error))
}

fn object(parameters: Value) -> Result<Map<String, Value>, WireError> {
    match parameters {
        Value::Null => Ok(Map::new()),
        Value::Object(object) => Ok(object),
        // a derived struct would also accept an array
        _ => Err(WireError::service("InvalidParameter", "parameter", "parameters")),
    }
}

fn at_fault(error: &serde_path_to_error::Error<serde_json::Error>) -> WireError {
    let path = error.path().to_string();
    // the name of an unknown or missing field is only in the message
    let message = error.inner().to_string();
    let quoted = message.split('`').nth(1).unwrap_or("parameters");
    let name = if path == "." { quoted } else { &path };
    WireError::service("InvalidParameter", "parameter", name)
}

/// A parameter by its own grammar.
pub(super) fn parse<T: FromStr<Err: std::error::Error + 'static>>(
    parameter: &str,
    text: &str,
) -> Result<T, ChangeError> {
    text.parse().map_err(|error: T::Err| ChangeError::invalid(parameter, error))
}

/// The same for an optional parameter.
pub(super) fn parse_if_given<T: FromStr<Err: std::error::Error + 'static>>(
    parameter: &str,
    text: Option<String>,
) -> Result<Option<T>, ChangeError> {
    text.map(|text| parse(parameter, &text)).transpose()
}

/// A path, which must be absolute: the supervisor's working directory is not the client's.
pub(super) fn absolute(parameter: &str, text: &str) -> Result<PathBuf, ChangeError> {
    let path = Path::new(text);
    match path.is_absolute() {
        true => Ok(path.to_owned()),
        false => Err(ChangeError::invalid(parameter, format!("the path '{text}' must be absolute"))),
    }
}

/// A path in the guest, which must be absolute.
pub(super) fn guest_path(path: &str) -> Result<(), ChangeError> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(()),
        false => Err(ChangeError::invalid("path", format!("the guest's path '{path}' must be absolute"))),
    }
}

/// Files and folders outside an image's own folder that it may refer to.
pub(super) fn allow_backing(paths: Option<Vec<String>>) -> Result<Vec<PathBuf>, ChangeError> {
    paths.unwrap_or_default().iter().map(|path| absolute("allow_backing", path)).collect()
}

/// A port number.
pub(super) fn port(parameter: &str, number: i64) -> Result<u16, ChangeError> {
    u16::try_from(number)
        .map_err(|_| ChangeError::invalid(parameter, format!("{number} is not a port (0 to 65535)")))
}

/// The size of a disk.
pub(super) fn size(bytes: i64) -> Result<Size, ChangeError> {
    u64::try_from(bytes)
        .ok()
        .and_then(Size::from_bytes)
        .ok_or_else(|| ChangeError::invalid("size_bytes", "a size must be more than 0 bytes"))
}

/// A time in milliseconds.
pub(super) fn milliseconds(parameter: &str, milliseconds: i64) -> Result<Duration, ChangeError> {
    u64::try_from(milliseconds)
        .map(Duration::from_millis)
        .map_err(|_| ChangeError::invalid(parameter, "a time may not be negative"))
}

/// `timeout_ms`, if it is given.
pub(super) fn timeout(timeout_ms: Option<i64>) -> Result<Option<Duration>, ChangeError> {
    timeout_ms.map(|timeout| milliseconds("timeout_ms", timeout)).transpose()
}

/// How long to wait for an agent that does not answer yet, if given; 0 = not at all.
pub(super) fn agent_timeout(agent_timeout_ms: Option<i64>) -> Result<Option<Duration>, ChangeError> {
    agent_timeout_ms.map(|timeout| milliseconds("agent_timeout_ms", timeout)).transpose()
}
