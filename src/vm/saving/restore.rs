//! The state of a saved VM, from its file into a new QEMU.

use std::fs::File;

use serde_json::Value;

use crate::host::saved::pump;
use crate::qemu::migration;
use crate::qmp::{Delivery, EventReceiver, Session, View};

use super::super::error::ChangeError;

/// Loads it; the guest's processors stand still after it.
pub(in super::super) async fn load(
    session: &Session,
    events: &mut EventReceiver,
    file: File,
) -> Result<(), ChangeError> {
    for command in migration::prepare() {
        session.run(&command).await?;
    }
    let (reader, writer) = std::io::pipe().map_err(ChangeError::host)?;
    // ends with QEMU at the latest, whose end of the pipe is then closed
    let pumped = tokio::task::spawn_blocking(move || pump(file, writer, |_| {}));
    session.pass(migration::DESCRIPTOR, reader.into()).await?;
    session.run(&migration::restore()).await?;
    let good = loop {
        match events.next().await {
            None => return Err(ChangeError::not_running()),
            Some(Delivery::Lost(_)) => {
                let answer = session.run(&migration::query()).await?;
                if let Some(good) = answer["status"].as_str().and_then(migration::ended) {
                    break good;
                }
            }
            Some(Delivery::Event(event)) => {
                if let View::Migration { status } = event.view()
                    && let Some(good) = migration::ended(status)
                {
                    break good;
                }
            }
        }
    };
    if !good {
        let answer = session.run(&migration::query()).await.unwrap_or(Value::Null);
        let why = answer["error-desc"].as_str().unwrap_or("it does not say why").to_owned();
        return Err(ChangeError::unsupported(format!("QEMU could not load the saved state: {why}")));
    }
    pumped.await.map_err(ChangeError::host)?.map_err(ChangeError::host)?;
    Ok(())
}
