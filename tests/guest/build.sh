#!/usr/bin/env bash
# Builds the small Linux guest of the test suite from Debian packages, without root, and prints
# the folder that holds it. `vmrun qemu FOLDER/guest` boots it; FOLDER/bzimage is the same guest
# with the kernel as Debian ships it, for firmware that cannot start an ELF kernel (UEFI).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VMRUN_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmrun}
# The contents of this folder are the key.
key=$(cd "$here" && find . -type f ! -name README.md -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
guest=$cache/guest-$key

if [ -e "$guest/guest-cmdline" ]; then
    echo "$guest"
    exit
fi

say() { echo "guest: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] ||
    fail "needs a Debian or Ubuntu system on amd64: the guest is made from its packages"

mkdir -p "$cache"
exec 9> "$cache/guest.lock"
flock 9
if [ -e "$guest/guest-cmdline" ]; then # someone else built it while this one waited
    echo "$guest"
    exit
fi
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
# The guest's files must not depend on this user's own settings.
umask 022

#--- packages ------------------------------------------------------------------------------

apt_options=()

# Package lists of our own, which needs no root, when the system has none or old ones.
own_package_lists() {
    say "reading the package lists anew"
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    apt_options=(-o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=)
    # A third-party source that does not answer is no reason to stop.
    apt-get "${apt_options[@]}" -q update > "$work/apt.log" 2>&1 || true
}

depends_of() { # the packages that $1 depends on, one a line, `<virtual>` ones left out
    apt-cache "${apt_options[@]}" depends --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances "$1" 2>/dev/null | sed -n 's/^ *|\{0,1\}\(Pre\)\{0,1\}Depends: \([^<].*\)/\2/p'
}

# The kernel's meta package leads to the real one (and, on Ubuntu, to a package of modules).
kernel_packages() {
    local meta image
    for meta in linux-image-amd64 linux-image-generic; do
        image=$(depends_of "$meta" | grep -E '^linux-image-[0-9]' | head -n 1) || continue
        echo "$image"
        depends_of "$image" | grep -E '^linux-modules-[0-9]' || true
        return
    done
    return 1
}

# The agent's libraries, with the libraries that those need.
library_packages() {
    local queue=(qemu-guest-agent) seen=" " package
    while [ ${#queue[@]} -gt 0 ]; do
        package=${queue[0]}
        queue=("${queue[@]:1}")
        case $seen in *" $package "*) continue ;; esac
        seen+="$package "
        [ "$package" = qemu-guest-agent ] || echo "$package"
        mapfile -t -O "${#queue[@]}" queue < <(depends_of "$package" | grep '^lib' || true)
    done
}

download() {
    local packages
    packages=$(kernel_packages) || return
    packages+=" busybox-static qemu-guest-agent $(library_packages)"
    # shellcheck disable=SC2086 # one word for each package
    (cd "$work/debs" && apt-get "${apt_options[@]}" -q -o APT::Sandbox::User= download $packages) >> "$work/apt.log" 2>&1
}

mkdir "$work/debs" "$work/unpacked"
say "fetching packages"
if ! download; then
    own_package_lists
    download || {
        cat "$work/apt.log" >&2
        fail "could not fetch the packages"
    }
fi
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$work/unpacked"
done

#--- kernel --------------------------------------------------------------------------------

say "building"
mkdir "$work/guest" "$work/root"
vmlinuz=$(echo "$work"/unpacked/boot/vmlinuz-*)
release=${vmlinuz##*/vmlinuz-}
number_at() { od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }

# QEMU can start an uncompressed ELF kernel (PVH). Under emulation that saves the guest more
# than half of its boot time: it need not unpack the kernel. Offsets: Linux boot protocol 2.08.
unpack_kernel() {
    local start length
    start=$((($(number_at "$vmlinuz" 497 1) + 1) * 512 + $(number_at "$vmlinuz" 584 4)))
    length=$(number_at "$vmlinuz" 588 4)
    # Bytes after the payload's end (its size) are not part of the compressed stream.
    tail -c "+$((start + 1))" "$vmlinuz" | head -c "$length" > "$work/payload"
    case $(head -c 4 "$work/payload" | od -An -tx1 | tr -d ' ') in
        fd377a58) xz -dc --single-stream < "$work/payload" > "$1" ;;
        28b52ffd) head -c -4 "$work/payload" | zstd -dcq > "$1" ;;
        1f8b*) gzip -dc < "$work/payload" > "$1" 2>/dev/null || true ;;
        *) return 1 ;;
    esac
    [ "$(head -c 4 "$1" | od -An -tx1 | tr -d ' ')" = 7f454c46 ]
}
cp "$vmlinuz" "$work/guest/bzimage-kernel"
chmod 644 "$work/guest/bzimage-kernel"
unpack_kernel "$work/guest/guest-kernel" || {
    say "cannot unpack this kernel: using it as it is, which boots more slowly"
    cp "$work/guest/bzimage-kernel" "$work/guest/guest-kernel"
}

#--- modules -------------------------------------------------------------------------------

root=$work/root
busybox=$(find "$work/unpacked" -path '*bin/busybox' -type f)
modules=$(find "$work/unpacked" -path "*lib/modules/$release" -type d)
mkdir -p "$root/lib/modules/$release"
find "$modules" -name '*.ko*' > "$work/module-files"
# A name may be written with - or _; an index by the one spelling finds both.
declare -A module_file
while read -r file; do
    name=${file##*/}
    name=${name%%.ko*}
    module_file[${name//-/_}]=$file
done < "$work/module-files"

# The signature at the end costs the guest an RSA check for each module, and nobody asks for it.
without_signature() {
    local magic='~Module signature appended~' size
    size=$(stat -c %s "$1")
    [ "$(tail -c 28 "$1" | tr -d '\n\0')" = "$magic" ] || return 0
    # 4 bytes, big endian, before the magic: the length of the signature; 12 bytes of header.
    local bytes
    read -r -a bytes < <(od -An -tu1 -j $((size - 32)) -N 4 "$1")
    truncate -s $((size - 40 - (bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3]))) "$1"
}

add_module() {
    local name=${1//-/_} file target needed
    file=${module_file[$name]-}
    # Not there: built into this kernel, or not known to it.
    [ -n "$file" ] || return 0
    target=$root/lib/modules/$release/$name.ko
    [ ! -e "$target" ] || return 0
    case $file in
        *.xz) xz -dc "$file" > "$target" ;;
        *.zst) zstd -dcq "$file" > "$target" ;;
        *.gz) gzip -dc "$file" > "$target" ;;
        *) cp "$file" "$target" ;;
    esac
    without_signature "$target"
    needed=$(tr '\0' '\n' < "$target" | grep -a '^depends=' || true)
    needed=${needed#depends=}
    for name in ${needed//,/ }; do
        add_module "$name"
    done
}
while read -r line; do
    for name in ${line%%#*}; do
        add_module "$name"
    done
done < "$here/modules.txt"
cp "$modules"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$release/" 2>/dev/null || true
"$busybox" depmod -b "$root" "$release"
rm -f "$root/lib/modules/$release"/modules.builtin*

#--- root file system ----------------------------------------------------------------------

mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,root,metadata,mnt,etc,lib64,usr/share,var/log}
ln -s ../run "$root/var/run"
"$busybox" --list | while read -r applet; do
    ln -s busybox "$root/bin/$applet"
done
rm "$root/bin/busybox"
cp "$busybox" "$root/bin/busybox"
cp -R "$here/rootfs/." "$root/"
chmod 755 "$root/init" "$root"/sbin/* "$root"/www/cgi-bin/* "$root/etc/udhcpc/default.script"
for name in poweroff halt reboot; do
    rm "$root/bin/$name"
    ln -s shutdown "$root/sbin/$name"
done
ln -s ../bin/busybox "$root/sbin/modprobe" # where the kernel looks for it
echo 'root::0:0:root:/root:/bin/sh' > "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"

# The dynamic linker of the unpacked libc tells which libraries the agent needs.
loader=$(find "$work/unpacked" -name 'ld-linux-x86-64.so.2' | head -n 1)
agent=$(find "$work/unpacked" -path '*bin/qemu-ga' -type f)
triplet=x86_64-linux-gnu
libraries=$("$loader" --library-path "$work/unpacked/lib/$triplet:$work/unpacked/usr/lib/$triplet" --list "$agent" |
    sed -n 's/.* => \([^ ]*\) .*/\1/p')
[ -n "$libraries" ] || fail "found none of the guest agent's libraries"
mkdir -p "$root/lib/$triplet"
cp "$agent" "$root/sbin/qemu-ga"
for library in $libraries; do
    case $library in
        "$work"/*) cp -L "$library" "$root/lib/$triplet/" ;;
        */ld-linux-x86-64.so.2) ;;
        *) fail "$library is not in the downloaded packages" ;;
    esac
done
cp -L "$loader" "$root/lib64/ld-linux-x86-64.so.2"

# Not compressed: unpacking costs an emulated CPU more than reading a bigger file.
(cd "$root" && find . | LC_ALL=C sort | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null) > "$work/guest/guest-initrd.img"
ln -s guest-initrd.img "$work/guest/bzimage-initrd.img"
ln -s guest-cmdline "$work/guest/bzimage-cmdline"
cp "$here/cmdline" "$work/guest/guest-cmdline"

rm -rf "$guest"
mv "$work/guest" "$guest"
say "built"
echo "$guest"
