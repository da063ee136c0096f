#!/usr/bin/env bash
# Installs a wheel into a new environment and runs the Python tests with the program that came with it: test-wheel.sh WHEEL
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 700 "$folder"

python3 -m venv "$folder/environment"
python=$folder/environment/bin/python
"$python" -m pip install --quiet --disable-pip-version-check "$1" \
    "$(grep '^pytest==' "$here/../tests/setup/requirements.txt")" "$(grep '^pytest-xdist==' "$here/../tests/setup/requirements.txt")"

echo "the newest glibc that it needs: $(grep -ao 'GLIBC_2\.[0-9]*' "$folder/environment/bin/vmrun" | sort -uV | tail -n 1)"
"$folder/environment/bin/vmrun" --version
env -u VMRUN -u PYTHONPATH PYTHONDONTWRITEBYTECODE=1 \
    "$python" -m pytest -q -p no:cacheprovider --vm-artefacts "$folder/artefacts" "$here/tests"
