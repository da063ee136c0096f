#!/usr/bin/env bash
# Prints the path of a Python that has the package of python/, without the program: the tests name that by $VMRUN. Makes its
# virtual environment when there is none for these sources.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
tools=$("$here/python.sh")
cache=${VMRUN_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmrun}
sources() {
    echo "$tools"
    cat "${BASH_SOURCE[0]}" "$root/Cargo.toml"
    (cd "$root/python" && find pyproject.toml README.md src -type f -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum)
}
environment=$cache/python-package-$(sources | sha256sum | cut -c1-16)
python=$environment/bin/python

make_environment() {
    local package=$environment/package
    rm -rf "$environment"
    # it sees the tools, and nothing else is shared
    "$tools" -m venv --without-pip "$environment"
    "$tools" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        > "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tools.pth"
    # the package without the program: what maturin adds takes a build of minutes
    mkdir "$package"
    cp -r "$root/python/pyproject.toml" "$root/python/README.md" "$root/python/src" "$package"
    local version
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
    sed -i -e 's/^requires = .*/requires = ["flit_core"]/' -e 's/^build-backend = .*/build-backend = "flit_core.buildapi"/' \
        -e "s/^dynamic = .*/version = \"$version\"/" "$package/pyproject.toml"
    "$tools" -m pip --python "$python" install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation "$package"
    rm -rf "$package"
    touch "$environment/complete"
}

if [ ! -e "$environment/complete" ] || ! "$python" -c 'import vmrun' 2> /dev/null; then
    mkdir -p "$cache"
    exec 9> "$cache/python.lock"
    flock 9
    if [ ! -e "$environment/complete" ] || ! "$python" -c 'import vmrun' 2> /dev/null; then
        echo "python: making $environment" >&2
        make_environment >&2
    fi
fi
echo "$python"
