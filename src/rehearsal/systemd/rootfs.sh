#!/bin/sh
# Makes of a fresh Debian tree what the images are: no unit starts that they do not have, no file of an instance's own.
# Called by mmdebstrap with the tree.
set -eu
root=$1

# What boots is what nixos/evaluated/ holds, and systemd itself.
rm -rf "$root"/etc/systemd/system/* "$root"/etc/init.d/* "$root"/etc/rc?.d/*
for unit in ssh.service ssh.socket sshd-keygen.service sshd@.service rescue-ssh.target postgresql.service postgresql@.service \
    nftables.service sudo.service e2scrub_all.timer e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer logrotate.timer console-getty.service getty.target serial-getty@.service \
    systemd-networkd-wait-online.service systemd-pstore.service; do
    rm -f "$root/usr/lib/systemd/system/$unit"
    find "$root/usr/lib/systemd/system" -path "*.wants/$unit" -delete
done
rm -f "$root"/usr/lib/systemd/system-generators/*ssh* "$root"/usr/lib/systemd/system-generators/postgresql* \
    "$root"/usr/lib/tmpfiles.d/sshd.conf

# Debian makes a database and host keys when it installs; an image holds neither.
rm -rf "$root"/var/lib/postgresql "$root"/etc/postgresql "$root"/etc/ssh/ssh_host_* "$root"/etc/ssh/sshd_config*
mkdir -p "$root/var/lib/postgresql" "$root/var/log/journal" "$root/nix/store"
: >"$root/etc/fstab"
: >"$root/etc/machine-id"
: >"$root/etc/resolv.conf"
rm -rf "$root"/etc/sudoers "$root"/etc/sudoers.d "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* \
    "$root"/usr/share/locale/*

# As in nixos/: people sign in as admin, clients jump as tunnel. `*` is no password, and no locked account either.
chroot "$root" groupadd --force --system wheel
chroot "$root" useradd --uid 1000 --gid users --create-home --shell /bin/bash --groups systemd-journal --password '*' admin
chroot "$root" useradd --system --gid nogroup --home-dir /var/empty --shell /nix/store/tunnel-shell --password '*' tunnel
mkdir -p "$root/var/empty"
