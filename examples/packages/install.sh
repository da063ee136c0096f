#!/usr/bin/env bash
# Puts a built vmrun and all that belongs to it where a system looks for it, or removes exactly that again: what `make install`,
# `make uninstall`, the Debian package and the RPM have in common.
#
#   PROGRAM=target/release/vmrun PREFIX=/usr/local DESTDIR= examples/packages/install.sh install
#   PREFIX=/usr/local DESTDIR= examples/packages/install.sh uninstall
#
# ZSH_FUNCTIONS says where zsh looks, below PREFIX. The list of what was installed, and of the folders made for it, is in
# PREFIX/share/vmrun: an upgrade removes what is not part of vmrun any more, and what others have put beside it stays.
set -euo pipefail

sources=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PREFIX=${PREFIX:-/usr/local}
case $PREFIX in
    /*) ;;
    *) echo "install: PREFIX=$PREFIX is not an absolute path" >&2; exit 2 ;;
esac
PREFIX=${PREFIX%/}
root=${DESTDIR:-}$PREFIX
zsh_functions=${ZSH_FUNCTIONS:-share/zsh/site-functions}
list=share/vmrun/installed
folders=share/vmrun/installed-folders

# Files below PREFIX; lists name no others.
is_below() { case /$1/ in */../* | //*) return 1 ;; esac; }

remove() { # FILE…, below PREFIX
    local file
    for file in "$@"; do
        if is_below "$file"; then rm -f -- "$root/$file"; fi
    done
}

remove_empty() { # the folders of a list, those that are deepest first
    local folder
    sort -r | while IFS= read -r folder; do
        if is_below "$folder" && [ -d "$root/$folder" ]; then rmdir --ignore-fail-on-non-empty -- "$root/$folder"; fi
    done
}

uninstall() {
    [ -e "$root/$list" ] || { echo "uninstall: there is no $root/$list: nothing was installed there" >&2; exit 1; }
    local installed made
    mapfile -t installed < "$root/$list"
    mapfile -t made < "$root/$folders"
    remove "${installed[@]}" "$list" "$folders"
    printf '%s\n' "${made[@]}" | remove_empty
    # of PREFIX and what is above it, too, the installation has made what was missing
    local above=$PREFIX
    while [ -n "$above" ] && printf '%s\n' "${made[@]}" | grep -qxF -- "$above"; do
        rmdir --ignore-fail-on-non-empty -- "${DESTDIR:-}$above" 2> /dev/null || true
        above=${above%/*}
    done
}

stage() { # into the folder $1, as it will be below PREFIX
    local at=$1 page file
    install -D -m 755 "$PROGRAM" "$at/bin/vmrun"
    install -d "$at/share/man/man1"
    "$PROGRAM" manual --list | while IFS= read -r page; do
        "$PROGRAM" manual "$page" > "$at/share/man/man1/$page.1"
    done
    install -d "$at/share/bash-completion/completions" "$at/$zsh_functions" "$at/share/fish/vendor_completions.d"
    "$PROGRAM" completions bash > "$at/share/bash-completion/completions/vmrun"
    "$PROGRAM" completions zsh > "$at/$zsh_functions/_vmrun"
    "$PROGRAM" completions fish > "$at/share/fish/vendor_completions.d/vmrun.fish"
    # systemd looks for units of users also in share/systemd/user, below ~/.local, too
    for file in lib/systemd/system:vmrun@.service share/systemd/user:user/vmrun@.service; do
        install -d "$at/${file%%:*}"
        sed "s|/usr/local/bin/vmrun|$PREFIX/bin/vmrun|" "$sources/examples/systemd/${file#*:}" > "$at/${file%%:*}/vmrun@.service"
    done
    install -D -m 644 -t "$at/share/doc/vmrun" "$sources"/README.md "$sources"/CHANGELOG.md "$sources"/LICENSE-*
    # the programs among the examples stay programs
    (cd "$sources" && find examples -type f -not -path 'examples/packages/*' -not -path '*/__pycache__/*' -not -path '*/vm-artefacts/*') |
        while IFS= read -r file; do
            install -D -m "$(if [ -x "$sources/$file" ]; then echo 755; else echo 644; fi)" "$sources/$file" "$at/share/doc/vmrun/$file"
        done
}

install_all() {
    [ -x "${PROGRAM:-}" ] || { echo "install: PROGRAM=${PROGRAM:-} is no program" >&2; exit 2; }
    local staged file folder above made=() installed=() old=()
    umask 022
    staged=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder's name is known now
    trap "rm -rf '$staged'" EXIT
    stage "$staged"
    mapfile -t installed < <(cd "$staged" && find . -type f -printf '%P\n' | sort)
    [ -e "$root/$list" ] && mapfile -t old < "$root/$list"
    [ -e "$root/$folders" ] && mapfile -t made < "$root/$folders"
    # what is above and below PREFIX, as far as it is not there
    above=$PREFIX
    while [ -n "$above" ] && [ ! -d "${DESTDIR:-}$above" ]; do
        made+=("$above")
        above=${above%/*}
    done
    while IFS= read -r folder; do
        [ -d "$root/$folder" ] || made+=("$folder")
    done < <(cd "$staged" && find . -mindepth 1 -type d -printf '%P\n'; echo share/vmrun)
    install -d "$root"
    # a program that runs is replaced, not overwritten
    cp -r --remove-destination "$staged/." "$root/"
    install -d "$root/share/vmrun"
    printf '%s\n' "${installed[@]}" > "$root/$list"
    printf '%s\n' "${made[@]}" | sort -u > "$root/$folders"
    for file in "${old[@]}"; do
        if ! grep -qxF -- "$file" "$root/$list"; then remove "$file"; fi
    done
}

case ${1:-} in
    install) install_all ;;
    uninstall) uninstall ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
