# Shared by the guest's own scripts.

say() { echo "vmrun-guest: $*" > /dev/console; }

# option NAME: the value of `vmrun.NAME=…` on the kernel's command line; fails if it is not there.
option() {
    local word
    # shellcheck disable=SC2013 # it is words that are wanted
    for word in $(cat /proc/cmdline); do
        case $word in
            "vmrun.$1") return 0 ;;
            "vmrun.$1="*) echo "${word#*=}"; return 0 ;;
        esac
    done
    return 1
}

# The lock folder decides who configures a card: init at boot, or the listener later.
net_up() {
    mkdir "/run/net-$1" 2>/dev/null || return 0
    ip link set "$1" up
    udhcpc -i "$1" -n -q -f -t 3 -T 1 -s /etc/udhcpc/default.script > /dev/null 2>&1 && return 0
    # No DHCP server answered: the address that QEMU's user networking gives to its first guest.
    [ "$1" = eth0 ] || return 0
    ip addr add 10.0.2.15/24 dev eth0
    ip route add default via 10.0.2.2
}

net_up_all() {
    local card
    for card in /sys/class/net/eth*; do
        [ -e "$card" ] && net_up "${card##*/}"
    done
}
