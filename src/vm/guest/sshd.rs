//! An sshd for one connection: started in the guest by its agent, it speaks on its standard streams. It needs no network, no service and
//! no key in the guest from before.

use std::time::Duration;

use serde_json::{Value, json};

use super::exec::Exec;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::Handle;

/// Between two tries of a wait: an image's first boot may still be making host keys.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long one try may take.
const ONE_TRY: Duration = Duration::from_secs(20);
/// What every SSH server says first (RFC 4253, 4.2).
const GREETING: &[u8] = b"SSH-2.0-";

/// Accepts the key `$1`, which is kept in a file named `$2`, beside those that the guest knows. What is on sshd's command line comes before
/// what is in its configuration.
const SSHD: &str = r#"
umask 022
for sshd in /usr/sbin/sshd /usr/local/sbin/sshd /usr/lib/ssh/sshd /usr/bin/sshd ''; do
    [ -n "$sshd" ] && [ -x "$sshd" ] && break
done
if [ -z "$sshd" ]; then
    echo 'vmrun: error: the guest has no sshd' >&2
    echo 'vmrun: hint: install openssh-server in the guest; `vmrun shell`, `vmrun exec` and `vmrun cp` need none' >&2
    exit 127
fi
keys=/run/vmrun-ssh
mkdir -p "$keys" /run/sshd
if [ ! -s "$keys/$2" ]; then
    printf '%s\n' "$1" > "$keys/$2.$$" && mv -f "$keys/$2.$$" "$keys/$2" || exit 1
fi
for key in /etc/ssh/ssh_host_*_key ''; do [ -s "$key" ] && break; done
[ -n "$key" ] || ssh-keygen -A > /dev/null 2>&1
exec "$sshd" -i -o "AuthorizedKeysFile=$keys/$2 .ssh/authorized_keys" -o PubkeyAuthentication=yes -o PermitRootLogin=prohibit-password
"#;

impl Exec {
    /// An sshd on the standard streams that accepts this public key; `name` is that of a file, one for each key.
    pub fn sshd(public_key: &str, name: &str) -> Self {
        Self { input: true, ..Self::script(SSHD, &[public_key, name]) }
    }
}

impl Handle {
    /// Waits until an sshd that is started in the guest greets.
    pub(in crate::vm) async fn sshd_greets(&self) -> Result<Value, ChangeError> {
        self.agent.check()?;
        loop {
            self.agent.answers().await;
            // without a key: a later connection brings its own
            let try_once = Exec { input: false, timeout: Some(ONE_TRY), ..Exec::sshd("", "none") };
            match self.exec(try_once).await {
                Ok(done) if done.stdout.starts_with(GREETING) => {
                    let line = done.stdout.split(|byte| *byte == b'\r' || *byte == b'\n').next();
                    return Ok(json!({ "greeting": String::from_utf8_lossy(line.unwrap_or_default()) }));
                }
                Ok(_) => {}
                // the agent or the guest is not as far yet; what it will never do ends the wait
                Err(error) if matches!(error.kind, ErrorKind::NotSupported) => return Err(error),
                Err(error) => log::debug!("no sshd yet: {error}"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
