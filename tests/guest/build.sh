#!/usr/bin/env bash
# Builds the small Linux guest of the test suite from Debian packages, without root, and prints
# the folder that holds it. `vmrun qemu FOLDER/guest` boots it; FOLDER/bzimage is the same guest
# with the kernel as Debian ships it, for firmware that cannot start an ELF kernel (UEFI).
#
#   build.sh [ARCH]     ARCH: x86_64 (default), aarch64, s390x or riscv64
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
arch=${1:-x86_64}
cache=${VMRUN_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmrun}
# The contents of this folder are the key.
key=$(cd "$here" && find . -type f ! -name README.md -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
guest=$cache/guest-$key
[ "$arch" = x86_64 ] || guest=$cache/guest-$arch-$key
# The name in Debian, the console that vmrun gives the guest, and the release that it is made from.
case $arch in
    x86_64) debian_arch=amd64 console=ttyS0 suite= ;; # what this machine has
    aarch64) debian_arch=arm64 console=ttyAMA0 suite=bookworm ;;
    s390x) debian_arch=s390x console=ttysclp0 suite=bookworm ;;
    riscv64) debian_arch=riscv64 console=ttyS0 suite=trixie ;; # the first release that has it
    *)
        echo "guest: unknown architecture '$arch': x86_64, aarch64, s390x or riscv64" >&2
        exit 2
        ;;
esac

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
exec 9> "$cache/guest-$arch.lock"
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

# Another architecture's packages, and a busybox that runs here.
download_foreign() {
    local image
    # shellcheck source=tests/setup/debian.sh
    . "$here/../setup/debian.sh"
    debian_apt "$work/apt" "$suite" "$debian_arch" amd64 || return
    apt_options=("${debian_options[@]}")
    image=$(depends_of "linux-image-$debian_arch" | grep -E '^linux-image-[0-9]' | head -n 1)
    # The agent's libraries are what its installation would bring; of the kernel's package nothing but itself is needed.
    apt-get "${apt_options[@]}" install --download-only -y qemu-guest-agent busybox-static || return
    cp "$work"/apt/archives/*.deb "$work/debs/"
    (cd "$work/debs" && apt-get "${apt_options[@]}" download "$image") || return
    mkdir "$work/here"
    (cd "$work/here" && apt-get "${apt_options[@]}" download busybox-static:amd64 && dpkg-deb -x busybox-static_*.deb .)
}

mkdir "$work/debs" "$work/unpacked"
say "fetching packages for $arch"
if [ "$arch" != x86_64 ]; then
    download_foreign >> "$work/apt.log" 2>&1 || {
        cat "$work/apt.log" >&2
        fail "could not fetch the packages"
    }
elif ! download; then
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
vmlinuz=$(echo "$work"/unpacked/boot/vmlinu[xz]-*)
release=${vmlinuz##*/vmlinu?-}
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
if [ "$arch" != x86_64 ]; then
    ln -s bzimage-kernel "$work/guest/guest-kernel"
elif ! unpack_kernel "$work/guest/guest-kernel"; then
    say "cannot unpack this kernel: using it as it is, which boots more slowly"
    cp "$work/guest/bzimage-kernel" "$work/guest/guest-kernel"
fi

#--- modules -------------------------------------------------------------------------------

root=$work/root
busybox=$(find "$work/unpacked" -path '*bin/busybox' -type f)
busybox_here=$busybox
[ "$arch" = x86_64 ] || busybox_here=$(find "$work/here" -path '*bin/busybox' -type f)
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
"$busybox_here" depmod -b "$root" "$release"
rm -f "$root/lib/modules/$release"/modules.builtin*

#--- root file system ----------------------------------------------------------------------

mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,root,metadata,mnt,etc,lib64,usr/share,var/log}
ln -s ../run "$root/var/run"
"$busybox_here" --list | while read -r applet; do
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

# The agent with the libraries that it and they name. (What runs on another architecture cannot be asked by running it.)
agent=$(find "$work/unpacked" -path '*bin/qemu-ga' -type f)
loader=$(LC_ALL=C readelf -lW "$agent" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
declare -A added
add_library() {
    local file needed
    [ -z "${added[$1]-}" ] || return 0
    added[$1]=yes
    file=$(find "$work/unpacked" -name "$1" ! -path '*/gconv/*' | head -n 1)
    [ -n "$file" ] || fail "$1, which the guest agent needs, is not in the downloaded packages"
    if [ "$1" = "${loader##*/}" ]; then
        mkdir -p "$root${loader%/*}"
        cp -L "$file" "$root$loader"
    else
        mkdir -p "$root/lib/$triplet"
        cp -L "$file" "$root/lib/$triplet/"
    fi
    while read -r needed; do
        add_library "$needed"
    done < <(libraries_of "$file")
}
libraries_of() { LC_ALL=C readelf -dW "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }
triplet=$arch-linux-gnu
cp "$agent" "$root/sbin/qemu-ga"
add_library "${loader##*/}"
while read -r library; do
    add_library "$library"
done < <(libraries_of "$agent")

# Not compressed: unpacking costs an emulated CPU more than reading a bigger file.
(cd "$root" && find . | LC_ALL=C sort | "$busybox_here" cpio -o -H newc -R 0:0 2>/dev/null) > "$work/guest/guest-initrd.img"
ln -s guest-initrd.img "$work/guest/bzimage-initrd.img"
ln -s guest-cmdline "$work/guest/bzimage-cmdline"
sed "s/@CONSOLE@/$console/" "$here/cmdline-$([ "$arch" = x86_64 ] && echo x86_64 || echo foreign)" > "$work/guest/guest-cmdline"

rm -rf "$guest"
mv "$work/guest" "$guest"
say "built"
echo "$guest"
