//! The shell in the guest that connects a command with its ports, and how it tells the command's end.

use super::exec::Executed;
use crate::vm::error::{ChangeError, ErrorKind};

/// Connects the ports (arguments: mark, names of the ports of output, error and input; an empty name: no input) and runs the
/// command. Writes a byte once the ports are open; before that the command has not been started. Without a command it waits for a
/// line at its input that sets mark and command, and writes another byte when it has it.
///
/// `exec` in a subshell never runs a shell's own command, as `echo` is one.
pub(super) const WITH_PORTS: &str = r#"
vmrun_mark=$1 vmrun_out=$2 vmrun_err=$3 vmrun_in=$4
shift 4
vmrun_find() {
    vmrun_tries=0
    while [ -d /sys/class/virtio-ports ]; do
        for vmrun_port in /sys/class/virtio-ports/*; do
            vmrun_name=
            read -r vmrun_name < "$vmrun_port/name"
            vmrun_port=/dev/${vmrun_port##*/}
            [ "$vmrun_name" = "$1" ] && [ -c "$vmrun_port" ] && return
        done
        vmrun_tries=$((vmrun_tries + 1))
        [ $vmrun_tries -lt 100 ] || break
        # a sleep of whole seconds only
        sleep 0.02 || { sleep 1; vmrun_tries=$((vmrun_tries + 30)); }
    done
    exit 1
}
{
    vmrun_find "$vmrun_out" && exec 3> "$vmrun_port" || exit
    vmrun_find "$vmrun_err" && exec 4> "$vmrun_port" || exit
    if [ -n "$vmrun_in" ]; then
        vmrun_find "$vmrun_in" && exec 5< "$vmrun_port" || exit
    else
        exec 5< /dev/null
    fi
} 2> /dev/null
printf . >&3
if [ $# = 0 ]; then
    vmrun_n='
'
    IFS= read -r vmrun_line <&5 || exit
    eval "$vmrun_line"
    printf . >&3
fi
vmrun_status=900
case $1 in
*/*)
    if [ -d "$1" ]; then vmrun_status=901
    elif [ -x "$1" ]; then vmrun_status=0
    elif [ -e "$1" ]; then vmrun_status=901
    fi
    ;;
*)
    set -f
    IFS=:
    for vmrun_folder in $PATH; do
        vmrun_program=${vmrun_folder:-.}/$1
        [ -f "$vmrun_program" ] || continue
        vmrun_status=901
        [ -x "$vmrun_program" ] && vmrun_status=0 && break
    done
    ;;
esac
if [ $vmrun_status = 0 ]; then
    (exec "$@") <&5 >&3 2>&4 3>&- 4>&- 5<&-
    vmrun_status=$?
fi
printf '%s%03d' "$vmrun_mark" $vmrun_status >&3
printf '%s%03d' "$vmrun_mark" $vmrun_status >&4
"#;

/// What words of [`on_one_line`] need, as a script.
#[cfg(test)]
pub(super) const NEWLINE: &str = "vmrun_n='\n'\n";

/// A word for the shell that [`WITH_PORTS`] has started, without a newline in it.
pub(super) fn on_one_line(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''").replace('\n', "'\"$vmrun_n\"'"))
}

/// The guest's shell, which runs [`WITH_PORTS`] and other scripts.
pub(super) const SHELL: &str = "/bin/sh";
/// The status of [`WITH_PORTS`] for a command that is not there.
const NO_COMMAND: u16 = 900;
/// The status of [`WITH_PORTS`] for a command that cannot be executed.
const NOT_EXECUTABLE: u16 = 901;

/// How a shell tells that a signal has ended a command: 128 and the signal's number, the largest of which is 64 (Linux).
const SIGNALLED: std::ops::RangeInclusive<u16> = 129..=192;

/// The result for a status behind the mark.
pub(super) fn executed(status: u16, program: &str) -> Result<Executed, ChangeError> {
    let id = program.to_owned();
    match status {
        NO_COMMAND => {
            let message = format!("the guest has no command '{program}'");
            Err(ChangeError::new(ErrorKind::NoSuchThing { id }, message))
        }
        NOT_EXECUTABLE => {
            let message = format!("the guest cannot execute '{program}': permission denied");
            Err(ChangeError::new(ErrorKind::RefusedByGuest { id }, message))
        }
        status if SIGNALLED.contains(&status) => {
            Ok(Executed { signal: Some(i64::from(status - SIGNALLED.start() + 1)), ..Executed::default() })
        }
        status => Ok(Executed { exit_code: Some(i64::from(status)), ..Executed::default() }),
    }
}
