#!/usr/bin/env bash
# Unpacks the QEMU of another Debian release beside the installed one, with all its libraries and modules, and prints the folder
# with its programs. Nothing is installed and no root is needed.
#
#   qemu.sh SUITE [PACKAGE…]     SUITE: trixie (10.x), sid (11.x)
#   make test-qemu QEMU="$(tests/setup/qemu.sh trixie)/qemu-system-x86_64"
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=${1:?the name of a Debian release, such as trixie}
shift
packages=("$@")
[ ${#packages[@]} -gt 0 ] || packages=(qemu-system-x86 qemu-utils)
# All its modules belong to it: QEMU would look for what is missing among those of the installed one, which are of another build.
# (SDL3 is what newer SDL2 packages load by themselves.) Those that the release does not have are left out.
modules=(qemu-system-gui qemu-system-modules-opengl qemu-system-modules-spice qemu-block-extra libsdl3-0)
cache=${VMRUN_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmrun}
key=$(sha256sum "$here/qemu.sh" "$here/debian.sh" <(echo "${packages[@]}" "${modules[@]}") | cut -d ' ' -f 1 | sha256sum | cut -c1-16)
folder=$cache/qemu-$suite-$key

mkdir -p "$cache"
exec 9> "$cache/qemu-$suite.lock"
flock 9
# The marker is written last: without it the folder is half made.
if [ -e "$folder/complete" ]; then
    echo "$folder/bin"
    exit
fi
echo "qemu: fetching QEMU of Debian $suite" >&2
rm -rf "$folder"
mkdir -p "$folder"/{apt,root,bin}
umask 022

architecture=$(dpkg --print-architecture)
# shellcheck source=tests/setup/debian.sh
. "$here/debian.sh"
debian_apt "$folder/apt" "$suite" "$architecture"
for package in "${modules[@]}"; do
    apt-cache "${debian_options[@]}" show "$package" > /dev/null 2>&1 && packages+=("$package")
done
apt-get "${debian_options[@]}" install --download-only -y "${packages[@]}" > "$folder/apt/install.log" 2>&1 || {
    cat "$folder/apt/install.log" >&2
    exit 1
}
# Some packages have /lib and others /usr/lib, which are one folder in an installed system.
mkdir -p "$folder"/root/usr/{bin,sbin,lib,lib64}
for name in bin sbin lib lib64; do
    ln -s "usr/$name" "$folder/root/$name"
done
for package in "$folder"/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$folder/root"
done
rm -rf "$folder/apt"

# A wrapper for each program. It is one process all the way: what is inherited, such as descriptors and the death signal, stays.
root=$folder/root
triplet=$(basename "$(compgen -G "$root/usr/lib/*-linux-gnu" | head -n 1)")
libraries=$root/usr/lib/$triplet
# PulseAudio's library has one of its own, in a folder of its own.
library_path=$libraries:$libraries/pulseaudio
loader=$(find "$libraries" -maxdepth 1 -name 'ld-linux*.so.*' | head -n 1)
# (Not a shell's script: a shell complains about a working directory that is gone, which is what QEMU is started in.)
for program in "$root"/usr/bin/qemu-*; do
    name=${program##*/}
    data=
    case $name in
        qemu-system-*) data="'-L', '$root/usr/share/qemu', '-L', '$root/usr/share/seabios', '-L', '$root/usr/lib/ipxe/qemu'," ;;
    esac
    cat > "$folder/bin/$name" <<EOT
#!/usr/bin/perl
# Where QEMU looks before it looks among the installed QEMU's modules, which are of another build.
\$ENV{QEMU_MODULE_DIR} = '$libraries/qemu';
exec '$loader', '--argv0', \$0, '--library-path', '$library_path', '$program', $data @ARGV or die \$!;
EOT
    chmod +x "$folder/bin/$name"
done
"$folder/bin/qemu-img" --version > "$folder/complete"
echo "$folder/bin"
