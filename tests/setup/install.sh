#!/usr/bin/env bash
# Installs what the demo and the tests need and this machine lacks. Does nothing, and quickly so,
# when everything is there. A program that is already in PATH counts, whatever its version.
#
#   install.sh [ARCH…]     also the QEMUs of these architectures: aarch64, s390x, riscv64
#   install.sh slurm       also Slurm, for tests/slurm
#   install.sh debian      also what the Debian guest is made with, and the clients of its services
set -euo pipefail

say() { echo "setup: $*" >&2; }
has() { command -v "$1" > /dev/null 2>&1; }

#--- what is missing -----------------------------------------------------------------------

# The package with the QEMU of s390x or riscv64.
package_with() {
    local own
    case $1 in
        s390x) own=qemu-system-s390x ;;
        *) own=qemu-system-riscv ;;
    esac
    if [ -n "$(apt-cache show "$own" 2> /dev/null)" ]; then echo "$own"; else echo qemu-system-misc; fi
}

packages=()
has qemu-system-x86_64 || packages+=(qemu-system-x86)
# Newer releases have a package of its own for each of the last two.
for arch in "$@"; do
    has "qemu-system-$arch" && continue
    case $arch in
        debian) continue ;;
        slurm)
            { has slurmctld && has slurmd; } || packages+=(slurm-wlm)
            has munged || packages+=(munge)
            ;;
        aarch64) packages+=(qemu-system-arm) ;;
        *) packages+=("$(package_with "$arch")") ;;
    esac
done
has qemu-img || packages+=(qemu-utils)
case " $* " in
    *" debian "*)
        for program in mmdebstrap fakeroot zstd rsync; do has "$program" || packages+=("$program"); done
        PATH=$PATH:/usr/sbin has mke2fs || packages+=(e2fsprogs)
        has ssh || packages+=(openssh-client)
        # a user makes it in a user namespace
        [ "$(id -u)" = 0 ] || has newuidmap || packages+=(uidmap)
        ;;
esac
has xz || packages+=(xz-utils)
# What tests look at images and network devices with; see tests/setup/have.sh.
has isoinfo || packages+=(genisoimage)
has ip || packages+=(iproute2)
# Shells, for the tests of completion.
has zsh || packages+=(zsh)
has fish || packages+=(fish)
# For the tests of packages.
has rpmbuild || packages+=(rpm)
# Windows, and a screen for them that nobody sees.
compgen -G '/usr/lib*/*/qemu/ui-gtk.so' > /dev/null || compgen -G '/usr/lib*/qemu/ui-gtk.so' > /dev/null ||
    packages+=(qemu-system-gui)
has Xvfb || packages+=(xvfb)
# Firmware for --uefi, wherever the distribution keeps it.
compgen -G '/usr/share/*/OVMF_CODE*.fd' > /dev/null || compgen -G '/usr/share/edk2/*/OVMF_CODE*.fd' > /dev/null ||
    packages+=(ovmf)
# A virtual environment can be made only with the module that brings pip into it.
if ! has python3; then
    packages+=(python3 python3-venv)
elif ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
    packages+=(python3-venv)
fi

check_rust() {
    if ! has cargo; then
        say "cargo is missing: install a Rust toolchain, see https://rustup.rs"
        return 1
    fi
    if ! has cc; then
        packages+=(gcc libc6-dev) # Rust links with it
    fi
    if ! cargo fmt --version > /dev/null 2>&1 || ! cargo clippy --version > /dev/null 2>&1; then
        say "rustfmt or clippy is missing, which 'make lint' needs: rustup component add rustfmt clippy"
    fi
}
check_rust || exit 1

[ ${#packages[@]} -gt 0 ] || exit 0

#--- install it ----------------------------------------------------------------------------

if ! has apt-get; then
    say "please install with this system's package manager what Debian calls: ${packages[*]}"
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=()
elif has sudo; then
    as_root=(sudo)
else
    say "run this as root, or do it yourself: apt-get install --no-install-recommends ${packages[*]}"
    exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >> "$log" 2>&1; }
install() { apt install --no-install-recommends "$@"; }
candidate() { LC_ALL=C apt-cache policy "$1" 2> /dev/null | sed -n 's/^ *Candidate: //p' | grep -v none; }

# A qemu-utils from a suite that apt no longer knows blocks the QEMU that apt does know ("held
# broken packages"): take both in that version. Named together so that neither removes the other.
install_with_matching_utils() {
    local version package exact=()
    version=$(candidate qemu-system-x86) || return
    for package in "${packages[@]}"; do
        case $package in
            qemu-system-x86 | qemu-utils) ;;
            *) exact+=("$package") ;;
        esac
    done
    install --allow-downgrades "${exact[@]}" qemu-system-x86 "qemu-utils=$version"
}

say "installing ${packages[*]}"
for package in "${packages[@]}"; do
    if ! candidate "$package" > /dev/null; then
        # A source that does not answer need not be the one that has the packages.
        apt update || say "not all package lists could be read"
        break
    fi
done

# QEMU alone could have apt remove its utilities: name them along.
case " ${packages[*]} " in
    *" qemu-system-x86 "*" qemu-utils "*) ;;
    *" qemu-system-x86 "*) packages+=(qemu-utils) ;;
esac
if ! install "${packages[@]}" && ! install_with_matching_utils; then
    # Old lists name versions that are no longer on offer.
    apt update || true
    if ! install "${packages[@]}" && ! install_with_matching_utils; then
        cat "$log" >&2
        say "could not install: ${packages[*]}"
        exit 1
    fi
fi

for program in qemu-system-x86_64 qemu-img; do
    has "$program" || {
        say "$program is still missing after the installation"
        exit 1
    }
done
