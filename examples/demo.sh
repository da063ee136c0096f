#!/usr/bin/env bash
# Boots a small Linux guest and changes it while it runs. Every line that begins with `$` is a command
# as you would type it; what follows is what it printed. `make demo` builds what this needs and runs it.
#
# The commands are in single quotes since they are shown before the shell expands them:
# shellcheck disable=SC2016
set -euo pipefail

guest=${VMRUN_TEST_GUEST:?'is not set; run: make demo'}
command -v vmrun > /dev/null || {
    echo 'demo: vmrun is not in PATH; run: make demo' >&2
    exit 1
}

bold='' green='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

#--- everything is in a folder of its own, which goes away however this ends ----------------

folder=$(mktemp -d "${TMPDIR:-/tmp}/vmrun-demo.XXXXXX")
output=$folder/.output

clean_up() {
    local code=$?
    trap '' INT TERM HUP
    # the VM is in a session of its own: nothing else ends it
    [ ! -e "$folder/vmrun/demo" ] || vmrun ctl --vm demo shutdown --force > /dev/null 2>&1 || true
    rm -rf "$folder"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

cd "$folder"
export VMRUN_RUNTIME_DIR=$folder
unset RUNTIME_DIRECTORY STATE_DIRECTORY
ln -s "$guest-kernel" "$guest-initrd.img" "$guest-cmdline" .

#--- how a step is shown --------------------------------------------------------------------

step() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

fail() {
    printf '%sdemo: %s%s\n' "$red" "$*" "$plain" >&2
    if [ -s guest-state/console.log ]; then
        printf 'demo: the last lines of the console:\n' >&2
        tail -n 15 guest-state/console.log >&2
    fi
    exit 1
}

# run COMMAND [TEXT...]: shows the command, runs it, shows what it printed, which must have these texts.
run() {
    local command=$1 text code=0
    shift
    printf '%s$ %s%s\n' "$green" "$command" "$plain"
    eval "$command" > "$output" 2>&1 || code=$?
    cat "$output"
    # at Ctrl-C the command ends first, and this shell hears of it afterwards
    [ "$code" -lt 128 ] || exit "$code"
    [ "$code" = 0 ] || fail "this command ended with exit code $code: $command"
    for text in "$@"; do
        grep -qF -- "$text" "$output" || fail "this command did not print '$text': $command"
    done
}

# run_quiet COMMAND: the same for a command that must not print anything.
run_quiet() {
    run "$1"
    [ ! -s "$output" ] || fail "this command should not have printed anything: $1"
}

if ! command -v curl > /dev/null; then
    echo "curl is not installed: the shell itself stands in for it."
    curl() { # curl -s [--data-binary DATA] URL
        local data='' url host path length
        shift
        if [ "$1" = --data-binary ]; then
            data=$2
            shift 2
        fi
        url=${1#http://}
        host=${url%%/*}
        path=/${url#*/}
        length=$(printf %s "$data" | wc -c)
        exec 3<> "/dev/tcp/${host%:*}/${host#*:}"
        printf '%s %s HTTP/1.0\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s' \
            "$([ -n "$data" ] && echo POST || echo GET)" "$path" "$host" "$length" "$data" >&3
        sed '1,/^\r*$/d' <&3
        exec 3>&-
    }
fi

#--- the demo -------------------------------------------------------------------------------

step 'Boot a Linux guest in the background: its kernel, initrd and command line begin with "guest-".'
# a Ctrl-C must not leave half a start behind
trap '' INT
run 'vmrun qemu guest --detached --name demo' demo
trap 'exit 130' INT

step 'Wait until its guest agent answers and something listens on its port 80.'
run 'vmrun ctl wait agent port=80 --all --timeout 5m' 'agent after' 'port=80 after'

step 'Plug in a USB stick. The machine has no USB controller yet, so it gets one first.'
run_quiet 'truncate --size 16M stick.img'
run 'vmrun ctl usb-add file=stick.img --id stick' stick
run 'vmrun ctl wait "console=add usb .*HARDDRIVE" --timeout 1m' 'add usb 46f4:0001 QEMU'
run 'vmrun ctl usb-list' stick usb-storage

step 'Forward a free port of this machine to port 80 of the guest, and fetch a page through it.'
port=
run_quiet 'port=$(vmrun ctl port-add 0:80)'
run 'curl -s http://127.0.0.1:$port/' '<h1>vmrun guest</h1>'

step 'Add a disk, which is created, and write to it from inside the guest.'
run 'vmrun ctl disk-add data.img,size=64M,format=raw,serial=demo,id=data' data
run 'vmrun ctl wait "console=add block vda .*size=67108864" --timeout 1m' 'add block vda'
run 'curl -s --data-binary "echo written by the guest > /dev/vda && sync" http://127.0.0.1:$port/cgi-bin/sh' 'exit=0'
run 'head -n 1 data.img' 'written by the guest'

step 'See all of it.'
run 'vmrun ls' demo running
run 'vmrun ctl status' stick data ":$port:80/tcp"

step 'Take it all away again.'
run 'vmrun ctl disk-remove data' removed
run 'vmrun ctl wait "console=remove block vda" --timeout 1m' 'remove block vda'
run 'vmrun ctl usb-remove stick' removed
run 'vmrun ctl wait "console=remove usb 46f4:0001" --timeout 1m' 'remove usb 46f4:0001'
run 'vmrun ctl port-remove $port' removed
run 'vmrun ctl --json usb-list' '[]'
run 'vmrun ctl --json disk-list' '[]'
run 'vmrun ctl --json port-list' '[]'

step 'Shut it down, and hear how it went off.'
run 'vmrun ctl shutdown --timeout 1m' 'the guest followed'
run_quiet 'vmrun ls'
