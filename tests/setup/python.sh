#!/usr/bin/env bash
# Prints the path of a Python that has the packages of requirements.txt; makes its virtual
# environment when there is none.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VMRUN_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmrun}
environment=$cache/python-$(sha256sum < "$here/requirements.txt" | cut -c1-16)
python=$environment/bin/python

# The marker is written last: without it the environment is half made. The interpreter is tried
# since it is a link to a Python that may have been removed.
if [ ! -e "$environment/complete" ] || ! "$python" -c 'import varlink, qemu.qmp' 2> /dev/null; then
    mkdir -p "$cache"
    exec 9> "$cache/python.lock"
    flock 9
    if [ ! -e "$environment/complete" ] || ! "$python" -c 'import varlink, qemu.qmp' 2> /dev/null; then
        echo "python: making $environment" >&2
        rm -rf "$environment"
        {
            python3 -m venv "$environment"
            "$python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
        } >&2
        touch "$environment/complete"
    fi
fi
echo "$python"
