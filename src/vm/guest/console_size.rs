//! The size of the guest's console: a serial line does not transmit it, so guests assume 24 rows of 80 columns.

use std::time::Duration;

use super::exec::Exec;
use crate::vm::error::ChangeError;
use crate::vm::handle::Handle;

/// How long the guest may take to run `stty`.
const STTY_TIMEOUT: Duration = Duration::from_secs(5);

/// How the guest's console size was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizedBy {
    /// Its agent ran `stty`.
    Agent,
    /// `stty` was typed into the console: correct where a shell waits for a command.
    Typing,
}

impl Handle {
    /// Sets the size of the guest's console: through its agent, or by typing the command where no agent answers or it cannot do
    /// that.
    ///
    /// # Errors
    /// There is no console, or the guest does not run.
    pub async fn resize_console(&self, rows: u16, columns: u16) -> Result<ResizedBy, ChangeError> {
        self.console.check()?;
        self.guest_can_answer()?;
        let stty = format!("stty rows {rows} cols {columns}");
        if self.agent.is_alive() {
            // the kernel's console, whatever its device is called
            let command = ["/bin/sh", "-c", &format!("{stty} < /dev/console")].map(str::to_owned).to_vec();
            let timeout = Some(STTY_TIMEOUT);
            let exec = Exec { command, timeout, agent_timeout: Some(Duration::ZERO), ..Exec::default() };
            match self.exec(exec).await {
                Ok(done) if done.exit_code == Some(0) => return Ok(ResizedBy::Agent),
                Ok(done) => {
                    log::info!(
                        "{stty} in the guest: {}",
                        super::shortened(&String::from_utf8_lossy(&done.stderr))
                    );
                }
                Err(error) => log::info!("{stty} in the guest: {error}"),
            }
        }
        self.console
            .input
            .send(format!("{stty}\r").into_bytes())
            .await
            .map_err(|_| ChangeError::not_running())?;
        Ok(ResizedBy::Typing)
    }
}
