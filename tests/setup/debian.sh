# shellcheck shell=bash
# Functions for scripts that fetch packages of another Debian release or architecture than this machine's, from the archive that
# this machine's apt uses already. Nothing is installed and no root is needed. To be sourced.

# The address of the Debian archive that apt uses here; fails on a system that has none (Ubuntu).
debian_archive() {
    local address
    address=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2> /dev/null | head -n 1) || true
    [ -n "$address" ] && echo "${address% }"
}

# debian_apt FOLDER SUITE ARCHITECTURE…: sets the array `debian_options`, with which apt knows that release and these architectures
# alone, believes that nothing is installed, and keeps all that it has in FOLDER. Reads the package lists.
debian_apt() {
    local folder=$1 suite=$2 archive key
    shift 2
    archive=$(debian_archive) || {
        echo "this machine's apt knows no Debian archive to fetch packages of $suite from" >&2
        return 1
    }
    key=$(compgen -G '/usr/share/keyrings/debian-archive-keyring.*' | head -n 1) || {
        echo "the keys of Debian's archive are missing: install debian-archive-keyring" >&2
        return 1
    }
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    echo "deb [signed-by=$key] $archive $suite main" > "$folder/sources.list"
    : > "$folder/status"
    debian_options=(-q
        -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$folder/lists" -o "Dir::State::status=$folder/status"
        -o "Dir::Cache=$folder" -o "Dir::Cache::Archives=$folder/archives"
        -o APT::Sandbox::User= -o APT::Install-Recommends=0 -o Debug::NoLocking=1
        -o "APT::Architecture=$1" -o "APT::Architectures::=$1")
    shift
    local other
    for other in "$@"; do
        debian_options+=(-o "APT::Architectures::=$other")
    done
    apt-get "${debian_options[@]}" update > "$folder/update.log" 2>&1 || {
        cat "$folder/update.log" >&2
        return 1
    }
}
