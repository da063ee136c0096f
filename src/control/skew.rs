//! Clients and supervisors of different versions: a VM goes on under the program that started it when another one is installed.
//!
//! What both know works: replies may have more than a client knows, and a client sends no parameter that says nothing. What only one
//! of them knows fails, and this names the versions.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::host::dirs::{RunClient, names};

use super::SERVICE_INTERFACE;
use super::client::ClientError;
use super::error::WireError;

const OWN: &str = env!("CARGO_PKG_VERSION");
const GET_INFO: &[u8] = b"{\"method\":\"org.varlink.service.GetInfo\"}\0";
/// The reply has some 200 bytes.
const MOST_BYTES: usize = 64 << 10;
/// The supervisor has just answered: this is for one that stops right now.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same error; one that comes of another version says which that is.
pub(super) fn named(error: ClientError, method: &str, directory: Option<&RunClient>) -> ClientError {
    let Some(directory) = directory else { return error };
    let method = method.rsplit('.').next().unwrap_or(method);
    match error {
        ClientError::Remote(error)
            if error.error.starts_with(SERVICE_INTERFACE) && error.text("message").is_none() =>
        {
            let what = match error.name() {
                "MethodNotFound" => format!("it has no {method}"),
                "InvalidParameter" => {
                    format!(
                        "its {method} does not take the parameter '{}'",
                        error.text("parameter").unwrap_or("?")
                    )
                }
                "ExpectedMore" => format!("its {method} replies in another way"),
                _ => return ClientError::Remote(error),
            };
            let version = version(directory);
            let mut parameters = error.parameters;
            parameters.insert("message".to_owned(), message(version.as_deref(), &what).into());
            if let Some(hint) = hint(version.as_deref(), directory) {
                parameters.insert("hint".to_owned(), hint.into());
            }
            ClientError::Remote(WireError { error: error.error, parameters })
        }
        ClientError::Protocol(why) => {
            let version = version(directory);
            match version.as_deref() {
                // not a supervisor of another version, but nonsense
                None => ClientError::Protocol(why),
                version => ClientError::Unreadable(message(
                    version,
                    &format!("its reply to {method} cannot be read ({why})"),
                )),
            }
        }
        other => other,
    }
}

fn message(version: Option<&str>, what: &str) -> String {
    match version {
        None => format!("the VM's supervisor is of another version than this vmrun {OWN}: {what}"),
        Some(OWN) => format!("the VM's supervisor is another build of vmrun {OWN}: {what}"),
        Some(version) => format!("the VM's supervisor is vmrun {version}, and this is vmrun {OWN}: {what}"),
    }
}

fn hint(version: Option<&str>, directory: &RunClient) -> Option<String> {
    let is_newer = numbers(version?) > numbers(OWN);
    if !is_newer {
        return Some(
            "a VM that is started by this vmrun has it; what that supervisor knows works".to_owned(),
        );
    }
    let program = std::fs::read_link(format!("/proc/{}/exe", directory.supervisor()?)).ok();
    let program = program.filter(|program| is_there(program));
    Some(match program {
        Some(program) => format!("the program that started the VM knows more: {}", program.display()),
        None => "the version that started the VM knows more".to_owned(),
    })
}

/// The kernel says ` (deleted)` behind the path of a program that was replaced.
fn is_there(program: &Path) -> bool {
    program.is_file()
}

/// `1.2.3-rc1` as `[1, 2, 3]`.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain.split('.').map_while(|number| number.parse().ok()).collect()
}

/// What a supervisor says that it is.
fn version(directory: &RunClient) -> Option<String> {
    let mut stream = directory.connect_within(names::CONTROL, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(GET_INFO).ok()?;
    let mut reply = Vec::new();
    let mut some = [0; 4096];
    while !reply.contains(&0) && reply.len() < MOST_BYTES {
        let count = stream.read(&mut some).ok().filter(|count| *count > 0)?;
        reply.extend_from_slice(&some[..count]);
    }
    let reply: Value = serde_json::from_slice(reply.split(|byte| *byte == 0).next()?).ok()?;
    let version = reply["parameters"]["version"].as_str()?;
    // it comes from another process
    (version.len() <= 40).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.12"));
        assert!(numbers("1.0.0-rc1") == numbers("1.0.0"));
        assert!(numbers("nonsense") < numbers(OWN));
    }

    #[test]
    fn both_versions_are_named() {
        assert_eq!(
            message(Some("0.0.9"), "it has no Freeze"),
            format!("the VM's supervisor is vmrun 0.0.9, and this is vmrun {OWN}: it has no Freeze")
        );
        assert!(message(Some(OWN), "x").contains("another build"));
        assert!(message(None, "x").contains("another version"));
    }
}
