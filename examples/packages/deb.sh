#!/usr/bin/env bash
# Builds a Debian package of a built vmrun from the same tree that `make install` makes, and prints its path.
#
#   PROGRAM=target/release/vmrun examples/packages/deb.sh FOLDER
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?into which folder?}
program=${PROGRAM:?which program?}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml" | head -n 1)
arch=$(dpkg --print-architecture)
case $arch in
    amd64 | i386) qemu="qemu-system-x86" ;;
    arm64) qemu="qemu-system-arm" ;;
    *) qemu="qemu-system-misc" ;;
esac
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

PROGRAM=$program PREFIX=/usr DESTDIR=$tree ZSH_FUNCTIONS=share/zsh/vendor-completions "$here/install.sh" install
# dpkg has a list of its own
rm -r "$tree/usr/share/vmrun"
doc=$tree/usr/share/doc/vmrun
mv "$doc/CHANGELOG.md" "$doc/changelog"
gzip -9n "$doc/changelog" "$tree"/usr/share/man/man1/*.1
{
    echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    echo "Files: *"
    echo "Copyright: the authors of vmrun"
    echo "License: Expat or Apache-2.0"
    sed 's/^$/./; s/^/ /' "$doc/LICENSE-MIT"
} > "$doc/copyright"

# The newest glibc whose symbols it uses; none for a static program.
libc=$(LC_ALL=C grep -ao 'GLIBC_[0-9][0-9.]*' "$program" | sed 's/GLIBC_//' | sort -uV | tail -n 1 || true)
if LC_ALL=C grep -qa GLIBC_ABI_DT_RELR "$program"; then
    libc=$(printf '%s\n' "$libc" 2.36 | sort -V | tail -n 1)
fi
if ! readelf --program-headers "$program" | grep -q INTERP; then libc=; fi

install -d "$tree/DEBIAN"
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) > "$tree/DEBIAN/md5sums"
{
    echo "Package: vmrun"
    echo "Version: $version"
    echo "Architecture: $arch"
    echo "Maintainer: the authors of vmrun <vmrun@localhost>"
    echo "Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)"
    if [ -n "$libc" ]; then echo "Depends: libc6 (>= $libc)"; fi
    echo "Recommends: $qemu, qemu-utils"
    echo "Suggests: ovmf, virtiofsd, bash-completion"
    echo "Section: misc"
    echo "Priority: optional"
    echo "Description: start QEMU virtual machines and change them while they run"
    echo " One program is the launcher, the supervisor and the client: it starts a VM from an"
    echo " image, and plugs devices, opens ports, waits, copies and shuts down while it runs."
} > "$tree/DEBIAN/control"

mkdir -p "$out"
package=$out/vmrun_${version}_$arch.deb
dpkg-deb --root-owner-group --build "$tree" "$package" > /dev/null
echo "$package"
