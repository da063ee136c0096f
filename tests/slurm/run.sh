#!/usr/bin/env bash
# A real Slurm with three nodes on this machine, which run the files of examples/slurm: that tasks end with the guest command's codes, and
# what scancel, time limits, requeueing, preemption and suspending do to them. Needs root (each node has mounts and a name of its own),
# slurmctld, slurmd, munged, and the guest.
#
#   VMRUN=…/vmrun GUEST=…/guest tests/slurm/run.sh
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
examples=$here/../../examples/slurm
: "${VMRUN:?the program}" "${GUEST:?the guest}"
# Containers may forbid it.
if ! unshare --mount --uts --propagation private true 2> /dev/null; then
    echo "slurm: skipped: each node needs mounts and a name of its own, which this user cannot make here"
    exit 0
fi

work=$(mktemp -d /var/tmp/vmrun-slurm.XXXXXX)
chmod 755 "$work"
daemons=()

line=
trap 'line=$LINENO' ERR

finish() {
    local status=$?
    # a job outlives the daemons
    scancel --user=root --signal=KILL --full 2> /dev/null || true
    scancel --user=root 2> /dev/null || true
    local end=$((SECONDS + 20))
    while [ $SECONDS -lt $end ] && [ -n "$(squeue --noheader --states=RUNNING,SUSPENDED,COMPLETING 2> /dev/null)" ]; do sleep 0.2; done
    for pid in "${daemons[@]}"; do kill "$pid" 2> /dev/null || true; done
    wait
    if [ $status != 0 ]; then tail -n 5 "$work"/log/* >&2 || true; fi
    [ -n "${KEEP:-}" ] || rm -rf "$work"
    [ $status = 0 ] || echo "slurm: line $line failed" >&2
    exit $status
}
trap finish EXIT

fail() {
    echo "slurm: $*" >&2
    exit 1
}

# until SECONDS WHAT COMMAND…: waits for what has no event to wait for: the state of a job.
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "$what did not happen: $*"
        sleep 0.2
    done
}

#--- the cluster ---------------------------------------------------------------------------

mkdir -p "$work"/{etc,state,log,tmp,run,shared/bin}
install -m 755 "$VMRUN" "$work/shared/bin/vmrun"
head -c 1024 /dev/urandom > "$work/etc/munge.key"
chmod 400 "$work/etc/munge.key"
munged --foreground --force --key-file="$work/etc/munge.key" --socket="$work/munge.socket" \
    --pid-file="$work/munged.pid" --log-file="$work/log/munged" --seed-file="$work/munge.seed" &> "$work/log/munged.out" &
daemons+=($!)
until_true 20 "munged" test -S "$work/munge.socket"

# Free ports of this machine, which no other program is given before they are bound: above those that the kernel gives out.
read -r _ last < /proc/sys/net/ipv4/ip_local_port_range
base=$((last + 1 + RANDOM % (65530 - last)))
{
    cat << CONF
ClusterName=vmrun
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldPidFile=$work/slurmctld.pid
SlurmctldLogFile=$work/log/slurmctld
SlurmdLogFile=$work/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
MinJobAge=3600
MailProg=/bin/true
CONF
    for number in 1 2 3; do
        echo "NodeName=n$number NodeHostname=n$number NodeAddr=127.0.0.1 Port=$((base + number)) CPUs=4 RealMemory=8000"
    done
    echo "PartitionName=low Nodes=n1,n2,n3 Default=YES MaxTime=INFINITE State=UP PriorityTier=1"
    echo "PartitionName=high Nodes=n1,n2,n3 MaxTime=INFINITE State=UP PriorityTier=10"
} > "$work/etc/slurm.conf"
export SLURM_CONF=$work/etc/slurm.conf
slurmctld -D &> "$work/log/slurmctld.out" &
daemons+=($!)
for node in n1 n2 n3; do
    mkdir -p "$work/spool-$node" "$work/$node/tmp" "$work/$node/run"
    chmod 1777 "$work/$node/tmp"
    # shellcheck disable=SC2016
    NODE=$node ROOM=$work/$node TMPDIR=$work/tmp RUN=$work/run unshare --mount --uts --propagation private bash -c '
        hostname "$NODE"
        mount --bind "$ROOM/run" "$RUN"
        mount --bind "$ROOM/tmp" "$TMPDIR"
        exec slurmd -D -N "$NODE"' &> "$work/log/slurmd-$node.out" &
    daemons+=($!)
done

# What the jobs get of this environment.
unset VMRUN_RUNTIME_DIR RUNTIME_DIRECTORY VMRUN_VM
# two folders that each node has of its own
export XDG_RUNTIME_DIR=$work/run
export PATH="$work/shared/bin:$PATH" TMPDIR=$work/tmp XDG_STATE_HOME=$work/shared/store XDG_CONFIG_HOME=$work/shared/config
export VMRUN_IMAGE=$GUEST VMRUN_SHARED_CACHE=$work/shared/cache XDG_CACHE_HOME=$work/shared/cache
mkdir -p "$work/shared/logs"
cd "$work/shared/logs"
three_idle() { [ "$(sinfo --noheader --states=idle --format=%D)" = 3 ]; }
until_true 60 "three idle nodes" three_idle

submit() { # the id of the job
    sbatch --parsable "$@"
}

field() { # field FIELD JOB: of a job, as scontrol shows it
    scontrol --oneliner show job "$2" | sed -n "1s/.*\\b$1=\\([^ ]*\\).*/\\1/p"
}

has() { # has STATE JOB
    [[ "$(field JobState "$2")" =~ ^($1)$ ]]
}

prints() { # prints TEXT FILE [TIMES]
    local count
    count=$(grep -c -e "$1" "$2" 2> /dev/null) || true
    [ "${count:-0}" -ge "${3:-1}" ]
}

qemus() { # how many run for this cluster: each has mapped the memory of the cluster's template
    local count=0 maps
    for maps in /proc/[0-9]*/maps; do
        # it may have ended meanwhile
        if [[ "$(readlink "${maps%maps}exe" 2> /dev/null)" == *qemu-system-* ]] && grep -qF "$work/" "$maps" 2> /dev/null; then
            count=$((count + 1))
        fi
    done
    echo $count
}

no_qemu() { [ "$(qemus)" = 0 ]; }

nothing_is_left() {
    local left
    until_true 20 "the end of all QEMUs" no_qemu
    # the folder of the runtime directory itself stays
    left=$(find "$work"/n?/run "$work"/n?/tmp -mindepth 1 ! -path "*/run/vmrun" | head -n 5)
    [ -z "$left" ] || fail "left after $1: $left"
}

passed() { echo "slurm: $*"; }

#--- forty tasks on three nodes, from one template ----------------------------------------

# shellcheck disable=SC2016
array=$(submit --array=1-40 "$examples/array.sbatch" 'echo "task $1"; exit $(($1 % 5))')
ended() { [ -z "$(squeue --noheader --jobs="$1" 2> /dev/null)" ]; }
until_true 240 "the end of forty tasks" ended "$array"
for task in $(seq 40); do
    code=$(field ExitCode "${array}_$task")
    [ "$code" = "$((task % 5)):0" ] || fail "task $task: $code instead of $((task % 5)):0: $(cat "vms-${array}_$task.log")"
    prints "^task $task" "vms-${array}_$task.log" || fail "task $task printed: $(cat "vms-${array}_$task.log")"
done
nodes=$(for task in $(seq 40); do field NodeList "${array}_$task"; done | sort -u | tr '\n' ' ')
[ "$nodes" = "n1 n2 n3 " ] || fail "the tasks ran on: $nodes"
templates=$(find "$work/shared/cache/vmrun/templates" -name memory | wc -l)
[ "$templates" = 1 ] || fail "$templates templates instead of one"
nothing_is_left "forty tasks"
passed "forty tasks on three nodes ended with the commands' codes, from one template"

#--- ends ----------------------------------------------------------------------------------

# The command hears SIGTERM, and says so.
# shellcheck disable=SC2016
hears='trap "echo heard TERM; exit 9" TERM; echo "begins $1"; while :; do sleep 0.2; done'

limited=$(submit --time=1 --signal=TERM@5 --array=1 "$examples/array.sbatch" "$hears")
cancelled=$(submit "$examples/vm.sbatch" sh -c "$hears")
until_true 60 "the command" prints begins "vm-$cancelled.log"
jobs=$("$examples/vmrun-jobs" --json)
[[ "$jobs" == *"\"job-$cancelled\""* ]] || fail "vmrun-jobs does not show job $cancelled: $jobs"
told=$("$examples/vmrun-jobs" exec "$cancelled" -- sh -c 'echo in the guest; exit 4') && code=0 || code=$?
[ "$told:$code" = "in the guest:4" ] || fail "vmrun-jobs exec: $told, exit code $code"
if no_qemu; then fail "the jobs' QEMUs are not seen"; fi
scancel "$cancelled"
until_true 30 "the end of a cancelled job" has "CANCELLED" "$cancelled"
until_true 20 "SIGTERM in the guest" prints "heard TERM" "vm-$cancelled.log"
passed "vmrun-jobs shows a job's VM and runs a command in it; scancel reaches the guest's command"

requeued=$(submit "$examples/vm.sbatch" sh -c "$hears")
until_true 60 "the command" prints begins "vm-$requeued.log"
scontrol requeue "$requeued"
until_true 200 "the second run" prints begins "vm-$requeued.log" 2
[ "$(field Restarts "$requeued")" = 1 ] || fail "no restart is shown"
scancel "$requeued"
until_true 30 "the end of a requeued job" has "CANCELLED" "$requeued"
passed "a requeued job begins anew in a new VM"

# shellcheck disable=SC2016
suspended=$(submit "$examples/vm.sbatch" sh -c 'i=0; while [ $i -lt 1000 ]; do i=$((i + 1)); echo "count $i"; sleep 0.1; done')
until_true 60 "the command" prints "count 5" "vm-$suspended.log"
scontrol suspend "$suspended"
until_true 20 "suspension" has "SUSPENDED" "$suspended"
# what was on its way arrives; then nothing comes
before=-1
stands_still() {
    local now=$before
    before=$(wc -l < "vm-$suspended.log")
    [ "$now" = "$before" ]
}
sleep 1
until_true 10 "standing still" stands_still
scontrol resume "$suspended"
goes_on() { [ "$(wc -l < "vm-$suspended.log")" -gt $((before + 5)) ]; }
until_true 30 "going on" goes_on
scancel "$suspended"
until_true 30 "the end of a suspended job" has "CANCELLED" "$suspended"
passed "a suspended job stands still and goes on"

preempted=$(submit --nodelist=n2 --exclusive "$examples/vm.sbatch" sh -c "$hears")
until_true 60 "the command" prints begins "vm-$preempted.log"
urgent=$(submit --partition=high --nodelist=n2 --exclusive "$examples/vm.sbatch" true)
until_true 60 "the urgent job" has "COMPLETED" "$urgent"
prints "heard TERM" "vm-$preempted.log" || fail "the preempted command heard nothing: $(cat "vm-$preempted.log")"
until_true 200 "the second run" prints begins "vm-$preempted.log" 2
scancel "$preempted"
until_true 30 "the end of a preempted job" has "CANCELLED" "$preempted"
passed "a preempted job gives way and begins anew"

until_true 150 "the time limit" has "TIMEOUT|FAILED" "${limited}_1"
prints "heard TERM" "vms-${limited}_1.log" || fail "the command heard nothing of its time limit: $(cat "vms-${limited}_1.log")"
passed "a time limit is heard by the guest's command"

missing=$(submit "$examples/vm.sbatch" no-such-command)
failed=$(VMRUN_IMAGE=/no/such/image submit "$examples/vm.sbatch" true)
until_true 60 "the end of a job without a command" has "FAILED" "$missing"
until_true 60 "the end of a job without an image" has "FAILED" "$failed"
[ "$(field ExitCode "$missing") $(field ExitCode "$failed")" = "127:0 125:0" ] ||
    fail "the codes of failures: $(field ExitCode "$missing") $(field ExitCode "$failed")"
nothing_is_left "all jobs"
passed "what cannot start has its own code; nothing is left on any node"
