#!/usr/bin/env bash
# Builds the Debian guest of the test suite, without loop devices and without mounting anything as root, and prints the folder that
# holds it: Debian 12 with systemd, sshd, cloud-init (NoCloud) and the guest agent.
#
#   vmrun qemu --kernel="$FOLDER/kernel" --initrd "$FOLDER/initrd" --append "$(cat "$FOLDER/cmdline")" --ephemeral "$FOLDER/disk.raw"
#
# As root it needs nothing more; a user needs user namespaces with subordinate ids (mmdebstrap's mode "unshare").
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=bookworm
cache=${VMRUN_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmrun}
# The contents of this folder are the key. (It is not tests/guest, so that a change here does not build the small guests anew.)
key=$(cd "$here" && find . -type f ! -name README.md -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
guest=$cache/guest-debian-$key

if [ -e "$guest/cmdline" ]; then
    echo "$guest"
    exit
fi

say() { echo "guest-debian: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

[ "$(dpkg --print-architecture 2> /dev/null)" = amd64 ] ||
    fail "needs a Debian or Ubuntu system on amd64: the guest is made from its packages"
for program in mmdebstrap fakeroot mke2fs xz zstd; do
    PATH=$PATH:/usr/sbin command -v "$program" > /dev/null || fail "$program is missing: tests/setup/install.sh debian installs it"
done
# shellcheck source=tests/setup/debian.sh
. "$here/../setup/debian.sh"
archive=$(debian_archive) || fail "this machine's apt knows no Debian archive"

mkdir -p "$cache"
exec 9> "$cache/guest-debian.lock"
flock 9
if [ -e "$guest/cmdline" ]; then # someone else built it while this one waited
    echo "$guest"
    exit
fi
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
umask 022
PATH=$PATH:/usr/sbin:/sbin

#--- the system as an archive ---------------------------------------------------------------

say "fetching and installing packages"
packages=$(sed 's/#.*//' "$here/packages.txt" | tr -s ' \n' ',,' | sed 's/^,//; s/,$//')
# The customisation comes in as an archive, since the hook's shell may be another user's (mode "unshare"), who cannot read this folder.
tar -C "$here/rootfs" --owner=0 --group=0 -cf "$work/rootfs.tar" .
unneeded=()
for folder in drivers/{gpu,media,net/wireless,net/ethernet,infiniband,iio,staging,isdn,hwmon,mtd,scsi/qla2xxx,scsi/lpfc} sound; do
    unneeded+=(--dpkgopt="path-exclude=/lib/modules/*/kernel/$folder/*")
done
# No initrd of initramfs-tools is made: this guest has its own, see below.
# shellcheck disable=SC2016 # $1 is the hook's: the folder of the new system
mmdebstrap --quiet --variant=minbase --include="$packages" \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    "${unneeded[@]}" --dpkgopt=force-confold \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools"; echo update_initramfs=no > "$1/etc/initramfs-tools/update-initramfs.conf"' \
    --customize-hook="tar-in $work/rootfs.tar /" \
    --customize-hook='chroot "$1" sh /customize.sh' \
    "$suite" "$work/system.tar" "deb $archive $suite main" > "$work/mmdebstrap.log" 2>&1 || {
    cat "$work/mmdebstrap.log" >&2
    fail "could not make the system"
}

#--- disk, kernel, initrd -------------------------------------------------------------------

say "building"
mkdir "$work/guest" "$work/boot"
# fakeroot keeps the archive's owners without root. (mke2fs 1.47.0 cannot read an archive yet.)
# shellcheck disable=SC2016 # $1 is the inner shell's
fakeroot -- bash -euo pipefail -c '
    mkdir "$1/system"
    tar -C "$1/system" -xf "$1/system.tar" --exclude="./dev/*"
    mv "$1/system/boot"/vmlinuz-* "$1/boot/vmlinuz"
    cp -R "$1/system/usr/lib/modules" "$1/boot/modules"
    cp "$1/system/usr/bin/busybox" "$1/boot/busybox"
    rm -rf "$1/system/boot"/*
    # A system that has booted before: a first boot would enable all its units anew. (mmdebstrap has emptied it.)
    od -An -tx1 -N16 /dev/urandom | tr -d " \n" > "$1/system/etc/machine-id"
    echo >> "$1/system/etc/machine-id"
    # no journal: nothing of this disk has to survive a crash
    mke2fs -q -t ext4 -L debian -O ^has_journal -d "$1/system" "$1/guest/disk.raw" 1536M > /dev/null
    rm -rf "$1/system"
' bash "$work"

kernel=$work/boot/vmlinuz
number_at() { od -An -t "u$2" -j "$1" -N "$2" "$kernel" | tr -d ' '; }
# QEMU starts an uncompressed ELF kernel (PVH), which saves an emulated processor the unpacking. Offsets: Linux boot protocol 2.08.
start=$((($(number_at 497 1) + 1) * 512 + $(number_at 584 4)))
tail -c "+$((start + 1))" "$kernel" | head -c "$(number_at 588 4)" > "$work/payload" || true
case $(head -c 4 "$work/payload" | od -An -tx1 | tr -d ' ') in
    fd377a58) xz -dc --single-stream < "$work/payload" > "$work/guest/kernel" ;;
    28b52ffd) head -c -4 "$work/payload" | zstd -dcq > "$work/guest/kernel" ;;
    *) cp "$kernel" "$work/guest/kernel" ;;
esac

# An initrd with the modules of the root disk and of the CD with metadata, for which cloud-init looks very early: what initramfs-tools
# makes takes an emulated processor several seconds.
release=$(ls "$work/boot/modules")
modules=$work/boot/modules/$release
initrd=$work/initrd
mkdir -p "$initrd"/{bin,dev,proc,sys,new,modules}
cp "$work/boot/busybox" "$initrd/bin/busybox"
ln -s busybox "$initrd/bin/sh"
install -m 755 "$here/initrd-init" "$initrd/init"
for name in virtio_pci virtio_blk ahci sr_mod crc32c_generic ext4; do
    # each with what it needs, which modules.dep names after it, last first
    files=$(sed -n "s|^\(.*/$name\.ko[^:]*\): *|\1 |p" "$modules/modules.dep")
    for file in $(echo "$files" | tr ' ' '\n' | tac); do
        target=$initrd/modules/$(basename "$file")
        [ -e "${target%.xz}" ] && continue
        cp "$modules/$file" "$target"
        case $target in *.xz) xz -d "$target" ;; esac
        basename "${target%.xz}" >> "$initrd/modules/order"
    done
done
(cd "$initrd" && find . | LC_ALL=C sort | "$work/boot/busybox" cpio -o -H newc -R 0:0 2> /dev/null) > "$work/guest/initrd"

cp "$here/cmdline" "$work/guest/cmdline"

rm -rf "$guest"
mv "$work/guest" "$guest"
say "built"
echo "$guest"
