#!/bin/sh
# Stands for systemd: Postgres as its unit would run it, and an API that is "running" while a file exists.
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
data=/var/lib/postgresql/data
as() { (cd / && setsid setpriv --reuid postgres --regid postgres --init-groups "$@"); }
# One job at a time, as systemd has it, also when the systemctl that began it was killed.
exec 9> /run/systemctl.lock
flock 9
case "$1 $2" in
"start var-lib-postgresql.mount")
    mountpoint -q /var/lib/postgresql \
        || mount -t ext4 -o noatime,nodev,nosuid,noexec /run/drawbridge/database-volume /var/lib/postgresql ;;
"start postgresql.target")
    mountpoint -q /var/lib/postgresql || { echo "not a mount point" >&2; exit 1; }
    if [ ! -d $data ]; then
        rm -rf $data.new
        as $bin/initdb -D $data.new --no-sync --no-locale --encoding=UTF8 >/dev/null
        echo "include_if_exists = '/var/lib/drawbridge/postgresql/tuning.conf'" >> $data.new/postgresql.conf
        mv $data.new $data
    fi
    if ! as $bin/pg_ctl -D $data status >/dev/null 2>&1; then
        rm -f $data/postmaster.pid
        as $bin/pg_ctl -D $data -l $data/log -w start -o "-c listen_addresses=* -c log_statement=all \
            -c log_connections=on -c unix_socket_directories=/run/postgresql -c ssl=on -c fsync=off \
            -c ssl_cert_file=/var/lib/drawbridge/postgresql/server.crt -c ssl_key_file=/var/lib/drawbridge/postgresql/server.key \
            -c hba_file=/var/lib/drawbridge/postgresql/pg_hba.conf -c ident_file=/var/lib/drawbridge/postgresql/pg_ident.conf" >/dev/null 9>&-
    fi ;;
"stop postgresql.target") [ ! -d $data ] || as $bin/pg_ctl -D $data -m immediate stop >/dev/null 2>&1 || true ;;
"restart drawbridge-api.service" | "start drawbridge-api.service") if [ -d /run/api-requests ]; then
    # A test plays systemd for a real API; see rotation.rs.
    echo "$1" > /run/api-requests/$$
    until [ -e /run/api-requests/$$.done ]; do sleep 0.02; done
    read -r status < /run/api-requests/$$.done
    exit "$status"
    fi
    [ -s /var/lib/drawbridge/api/database-password.cred ]; : > /run/api ;;
*) echo "unknown: $*" >&2; exit 1 ;;
esac
