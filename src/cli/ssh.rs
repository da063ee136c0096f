//! `vmrun ssh`, `scp`, `rsync`: the real programs, connected to an sshd that the guest's agent starts for the connection.
//!
//! ```text
//! ssh ── ProxyCommand: vmrun ssh-proxy NAME ── control socket ── streams of `exec` ── sshd -i in the guest
//! ```
//!
//! So there is no port that another user of this host could reach, no network that is needed, and nothing to remove afterwards: the sshd
//! ends with its streams, and these with the connection to the control socket, however a process of this chain ends. Host keys are not
//! compared: only this user can open the control socket, which says whose guest it is.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Args;

use crate::control::find::FindError;
use crate::host::dirs::{RuntimeEnvironment, StoreEnvironment, runtime_root, store_path};
use crate::host::programs::{self, SearchPath};
use crate::host::ssh_key::{SshKey, SshKeyError};
use crate::host::sys;
use crate::qemu::quote;
use crate::spec::VmName;
use crate::vm::{ErrorChain, Exec};

use super::connect;
use super::ctl::AgentArgs;
use super::failure::Failure;
use super::guest_command::{self, OutputTo};
use super::output::Stdout;
use super::target::named;

/// Options of scp and rsync of one letter whose value is the next word, which is no side of a copy.
const WITH_VALUE: &str = "cDeFfiJlMoPSTBX";

/// `vmrun ssh`.
#[derive(Debug, Args)]
pub(super) struct SshArgs {
    /// [USER@]NAME of the VM; the user is root unless given
    #[arg(value_name = "[USER@]NAME", value_parser = Destination::parse)]
    destination: Destination,
    /// Options of ssh, and the command to run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    words: Vec<OsString>,
}

/// `vmrun scp` and `vmrun rsync`.
#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    /// The program's own options, sources and destination; [USER@]NAME:PATH is in the guest of a VM
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "ARGS")]
    words: Vec<OsString>,
}

/// `vmrun ssh-config`.
#[derive(Debug, Args)]
pub(super) struct SshConfigArgs {
    /// VM name
    #[arg(value_parser = named)]
    name: VmName,
}

/// `vmrun ssh-proxy`.
#[derive(Debug, Args)]
pub(super) struct SshProxyArgs {
    /// VM name
    #[arg(value_parser = named)]
    name: VmName,
    #[command(flatten)]
    agent: AgentArgs,
}

/// A VM, and the user there.
#[derive(Debug, Clone)]
struct Destination {
    user: Option<String>,
    name: VmName,
}

impl Destination {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, name) = text.rsplit_once('@').map_or((None, text), |(user, name)| (Some(user), name));
        if user.is_some_and(|user| user.is_empty() || user.starts_with('-')) {
            return Err("the user's name is empty, or begins with '-'".to_owned());
        }
        Ok(Self { user: user.map(str::to_owned), name: named(name)? })
    }
}

/// Becomes ssh.
pub(super) fn ssh(args: SshArgs) -> Result<u8, Failure> {
    let Destination { user, name } = args.destination;
    // a VM that does not run is told as everywhere, and not as a connection that was closed
    drop(connect(Some(&name))?);
    let mut words = vec![OsString::from("-F"), config()?.into()];
    words.extend(user.into_iter().flat_map(|user| ["-l".into(), user.into()]));
    words.push(name.as_str().into());
    words.extend(args.words);
    become_program("ssh", "openssh-client", &words)
}

/// Becomes scp.
pub(super) fn scp(args: CopyArgs) -> Result<u8, Failure> {
    check_sides(&args.words)?;
    let words = [OsString::from("-F"), config()?.into()].into_iter().chain(args.words);
    become_program("scp", "openssh-client", &words.collect::<Vec<_>>())
}

/// Becomes rsync.
pub(super) fn rsync(args: CopyArgs) -> Result<u8, Failure> {
    check_sides(&args.words)?;
    let config = config()?;
    // rsync takes it apart at blanks, and knows quotes
    let shell = format!("ssh -F {}", quote::posix(&config.to_string_lossy()));
    let words = [OsString::from("-e"), shell.into()].into_iter().chain(args.words);
    become_program("rsync", "rsync", &words.collect::<Vec<_>>())
}

/// Prints what ssh, scp, rsync, Ansible and editors need in `~/.ssh/config`.
pub(super) fn ssh_config(args: &SshConfigArgs) -> Result<u8, Failure> {
    let key = SshKey::of_user(&StoreEnvironment::from_env()).map_err(no_key)?;
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    let runtime = root.parent().unwrap_or(&root);
    let store =
        store_path(&StoreEnvironment::from_env()).map_err(|error| no_key(SshKeyError::NoStore(error)))?;
    let state = store.parent().unwrap_or(&store);
    // where it is read these may be others
    let mut proxy = vec!["env".to_owned()];
    proxy.push(quote::posix(&format!("VMRUN_RUNTIME_DIR={}", text(runtime)?)));
    proxy.push(quote::posix(&format!("XDG_STATE_HOME={}", text(state)?)));
    let block = block(args.name.as_str(), &key, &proxy.join(" "), &quote::posix(args.name.as_str()))?;
    let mut stdout = Stdout::default();
    stdout.raw(block.as_bytes());
    stdout.finish()
}

/// Connects standard input and output to an sshd that is started in the guest.
pub(super) fn ssh_proxy(args: SshProxyArgs) -> Result<u8, Failure> {
    let key = SshKey::of_user(&StoreEnvironment::from_env()).map_err(no_key)?;
    let (_, mut client) = connect(Some(&args.name))?;
    let sshd = Exec::sshd(&key.public, &key.name());
    let exec = Exec { agent_timeout: Some(args.agent.agent_timeout), ..sshd };
    let so = "no sshd can be spoken to in it";
    let executed = guest_command::run_live(&mut client, exec, OutputTo::Printed, so, |_| true)?;
    Ok(guest_command::exit_code(&executed))
}

fn become_program(name: &str, package: &'static str, words: &[OsString]) -> Result<u8, Failure> {
    let program = programs::client(name, package, &SearchPath::from_env())
        .map_err(|error| Failure::other(&error).hint(error.hint()))?;
    let error = sys::become_program(&program, OsStr::new(name), words);
    Err(Failure::other(format!("{}: {error}", program.display())))
}

/// The configuration of the three, in a file: a user on their command lines must come before its own.
fn config() -> Result<std::path::PathBuf, Failure> {
    let key = SshKey::of_user(&StoreEnvironment::from_env()).map_err(no_key)?;
    // the name as typed, which is a VM's: nothing in it means anything to the shell that starts this
    let text = block("*", &key, "", "%n")?;
    key.write_config(&text).map_err(no_key)
}

fn block(host: &str, key: &SshKey, environment: &str, name: &str) -> Result<String, Failure> {
    let program = std::env::current_exe().map_err(Failure::other)?;
    let command = [environment, &quote::posix(text(&program)?)].join(" ").replace('%', "%%");
    let identity = text(&key.path())?.replace('%', "%%");
    Ok(format!(
        "Host {host}\n    User root\n    IdentityFile \"{identity}\"\n    IdentitiesOnly yes\n    \
         StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n    GlobalKnownHostsFile /dev/null\n    LogLevel ERROR\n    \
         ProxyCommand {} ssh-proxy {name}\n",
        command.trim_start()
    ))
}

/// A path as a word of ssh's configuration, which has no way to write every byte.
fn text(path: &Path) -> Result<&str, Failure> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\n', '\r']));
    text.ok_or_else(|| {
        Failure::other(format!("{} cannot be named in ssh's configuration", path.display()))
            .hint(Some("its name has a quote, a line break, or is not UTF-8".to_owned()))
    })
}

/// What is in front of the colon of a side must be the name of a VM: it goes to a shell.
fn check_sides(words: &[OsString]) -> Result<(), Failure> {
    let mut is_value = false;
    for word in words {
        let text = word.to_string_lossy();
        let skipped = std::mem::replace(&mut is_value, takes_value(&text));
        let Some((host, _)) = text.split_once(':').filter(|(host, _)| !host.contains('/')) else { continue };
        if !skipped && !text.starts_with('-') {
            Destination::parse(host).map_err(|why| {
                Failure::usage(format!("{text}: {why}"))
                    .hint(Some(format!("a file of this host with a colon in its name is `./{text}`")))
            })?;
        }
    }
    Ok(())
}

fn takes_value(word: &str) -> bool {
    let letters = word.strip_prefix('-').filter(|letters| !letters.starts_with('-'));
    letters.and_then(|letters| letters.chars().last()).is_some_and(|last| WITH_VALUE.contains(last))
}

fn no_key(error: SshKeyError) -> Failure {
    let hint = error.hint();
    Failure::other(error.with_causes()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(words: &[&str]) -> Result<(), Failure> {
        check_sides(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn only_names_of_vms_reach_the_shell() {
        for words in [
            &["a", "web:/b"][..],
            &["-r", "me@web-1.2:b", "./x:y", "/a:b"],
            &["-o", "ProxyJump=a:b", "x", "web:"],
            &["--rsync-path=a:b", "-avP", "x", "web:y"],
        ] {
            assert!(checked(words).is_ok(), "{words:?}");
        }
        for words in [
            &["x;rm:y", "b"][..],
            &["$(id):y", "b"],
            &["'a':x", "b"],
            &["a b:x", "b"],
            &[":x", "b"],
            &["-x@web:y", "b"],
        ] {
            assert!(checked(words).is_err() || words[0].starts_with('-'), "{words:?}");
        }
        for text in ["", "@web", "-x@web", "a b", "web;id", "me@"] {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }
}
