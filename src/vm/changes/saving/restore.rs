//! The state of a saved VM, from its file into a new QEMU.

use std::fs::File;
use std::pin::pin;
use std::time::Duration;

use serde_json::Value;

use crate::host::saved::pump;
use crate::qemu::migration;
use crate::qmp::{Delivery, EventReceiver, Session, View};

use crate::vm::error::ChangeError;

/// How long QEMU may take for the last of the stream, which it loads in milliseconds. QEMU 7.2 asks for ever for more where there is none.
const REST: Duration = Duration::from_secs(30);

/// Loads it; the guest's processors stand still after it.
pub(in crate::vm) async fn load(
    session: &Session,
    events: &mut EventReceiver,
    file: File,
) -> Result<(), ChangeError> {
    for command in migration::prepare() {
        session.run(&command).await?;
    }
    let (reader, writer) = std::io::pipe().map_err(ChangeError::host)?;
    // ends with QEMU at the latest, whose end of the pipe is then closed
    let mut pumping = tokio::task::spawn_blocking(move || pump(file, writer, |_| {}));
    session.pass(migration::DESCRIPTOR, reader.into()).await?;
    session.run(&migration::restore()).await?;
    let mut pumped = None;
    let good = {
        let mut ending = pin!(ended(session, events));
        loop {
            tokio::select! { biased;
                good = &mut ending => break good?,
                done = &mut pumping, if pumped.is_none() => pumped = Some(done.map_err(ChangeError::host)?),
                () = tokio::time::sleep(REST), if pumped.is_some() => {
                    let message = "QEMU does not come to an end with the saved state: it wants more than the file has";
                    return Err(ChangeError::unsupported(message));
                }
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

/// Resolves when QEMU has loaded the state, or has failed to (false).
async fn ended(session: &Session, events: &mut EventReceiver) -> Result<bool, ChangeError> {
    loop {
        let status = match events.next().await {
            None => return Err(ChangeError::not_running()),
            Some(Delivery::Lost(_)) => {
                let answer = session.run(&migration::query()).await?;
                answer["status"].as_str().and_then(migration::ended)
            }
            Some(Delivery::Event(event)) => match event.view() {
                View::Migration { status } => migration::ended(status),
                _ => None,
            },
        };
        if let Some(good) = status {
            return Ok(good);
        }
    }
}
