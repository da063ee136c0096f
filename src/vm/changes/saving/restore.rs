//! Loads the state of a saved VM from its file into a new QEMU.

use std::fs::File;
use std::io;
use std::pin::pin;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::host::saved::pump;
use crate::qemu::migration;
use crate::qmp::{Delivery, EventReceiver, Session, View};

use crate::vm::error::{ChangeError, ErrorKind};

/// How long QEMU may take for the next piece of the stream, and to finish after its end, which takes milliseconds. QEMU may hang,
/// and 7.2 waits forever for more where the stream is cut off.
const STANDSTILL: Duration = Duration::from_secs(30);

/// Loads it; the guest's processors are stopped afterwards. `without_memory`: the guest's memory is in a file, and not in the stream.
pub(in crate::vm) async fn load(
    session: &Session,
    events: &mut EventReceiver,
    file: File,
    without_memory: bool,
) -> Result<(), ChangeError> {
    load_within(session, events, file, without_memory, STANDSTILL).await
}

async fn load_within(
    session: &Session,
    events: &mut EventReceiver,
    file: File,
    without_memory: bool,
    standstill: Duration,
) -> Result<(), ChangeError> {
    for command in migration::prepare(without_memory) {
        session.run(&command).await?;
    }
    let (reader, writer) = io::pipe().map_err(ChangeError::host)?;
    // ends with QEMU at the latest, whose end of the pipe is then closed
    let (taken, mut progress) = watch::channel(0);
    let counted = move |total| {
        taken.send_replace(total);
    };
    let mut pumping = tokio::task::spawn_blocking(move || pump(file, writer, counted));
    session.pass(migration::DESCRIPTOR, reader.into()).await?;
    session.run(&migration::restore()).await?;
    let mut pumped = None;
    let good = {
        let mut ending = pin!(ended(session, events));
        loop {
            tokio::select! { biased;
                good = &mut ending => break good?,
                done = &mut pumping, if pumped.is_none() => pumped = Some(done.map_err(ChangeError::host)?),
                // each piece restarts the deadline
                Ok(()) = progress.changed() => {}
                () = tokio::time::sleep(standstill) => return Err(stood_still(pumped, *progress.borrow(), standstill)),
            }
        }
    };
    if !good {
        let answer = session.run(&migration::query()).await.unwrap_or(Value::Null);
        let why = answer["error-desc"].as_str().unwrap_or("it does not say why").to_owned();
        return Err(ChangeError::unsupported(format!("QEMU could not load the saved state: {why}")));
    }
    let pumped = match pumped {
        Some(pumped) => pumped,
        None => pumping.await.map_err(ChangeError::host)?,
    };
    pumped.map_err(ChangeError::host)?;
    Ok(())
}

/// Why loading was given up: by how far the file's bytes were read.
fn stood_still(pumped: Option<io::Result<u64>>, taken: u64, standstill: Duration) -> ChangeError {
    match pumped {
        Some(Ok(_)) => ChangeError::unsupported(
            "QEMU does not come to an end with the saved state: it wants more than the file has",
        ),
        Some(Err(error)) => ChangeError::host(error),
        None => {
            let seconds = standstill.as_secs();
            let message =
                format!("QEMU hangs: it has read {taken} bytes of the saved state, and none for {seconds} s");
            ChangeError::new(ErrorKind::TimedOut, message).hint("QEMU is stopped or overloaded; try again")
        }
    }
}

/// Resolves when QEMU has loaded the state (true), or has failed to (false).
async fn ended(session: &Session, events: &mut EventReceiver) -> Result<bool, ChangeError> {
    loop {
        let status = match events.next().await {
            None => return Err(ChangeError::not_running()),
            Some(Delivery::Lost(_)) => {
                let answer = session.run(&migration::query()).await?;
                migration::status(&answer).and_then(migration::ended)
            }
            Some(Delivery::Event(event)) => match event.view {
                View::Migration { status: Some(status) } => migration::ended(status),
                _ => None,
            },
        };
        if let Some(good) = status {
            return Ok(good);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use serde_json::json;

    use super::*;
    use crate::qmp::fake::{GREETING, receive};
    use crate::qmp::{Connected, Options};

    const SHORT: Duration = Duration::from_millis(300);

    /// A QEMU that answers everything and sends no events. It holds the stream, or reads it to its end.
    async fn qemu(reads: bool) -> Connected {
        let (theirs, mut ours) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            writeln!(ours, "{GREETING}").unwrap();
            while let Ok((bytes, files)) = receive(&ours) {
                for mut file in files {
                    match reads {
                        true => drop(std::thread::spawn(move || file.read_to_end(&mut Vec::new()))),
                        false => kept.push(file),
                    }
                }
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let command: Value = serde_json::from_slice(line).unwrap();
                    let _ = writeln!(ours, "{}", json!({ "return": {}, "id": command["id"] }));
                }
                if bytes.is_empty() {
                    return;
                }
            }
        });
        theirs.set_nonblocking(true).unwrap();
        let theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        Session::connect(theirs, Options::default()).await.unwrap()
    }

    async fn load(reads: bool, length: u64) -> ChangeError {
        let Connected { session, mut events, .. } = qemu(reads).await;
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        load_within(&session, &mut events, file, false, SHORT).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_qemu_that_takes_nothing_is_given_up() {
        let error = load(false, 5 << 20).await;
        assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
        assert!(error.message.starts_with("QEMU hangs: it has read 0 bytes"), "{error}");
    }

    #[tokio::test]
    async fn a_qemu_that_wants_more_is_given_up() {
        // what is read to its end fits into the pipe as well
        for (reads, length) in [(true, 5 << 20), (false, 1000)] {
            let error = load(reads, length).await;
            assert!(error.message.contains("wants more than the file has"), "{error}");
        }
    }
}
