# Run inside the new system when it is built, once.
set -eu
echo debian > /etc/hostname
echo '/dev/vda / ext4 errors=remount-ro,noatime 0 1' > /etc/fstab
printf '127.0.0.1 localhost debian\n::1 localhost\n' > /etc/hosts
# Keys that all have who build this guest's disk: for tests only.
ssh-keygen -A
systemctl enable systemd-networkd.service
# A machine that lives for minutes needs no upkeep, and its console is a serial port.
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    motd-news.timer systemd-pstore.service getty@tty1.service
rm -f /customize.sh
