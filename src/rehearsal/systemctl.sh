#!/bin/sh
# Plays systemctl on a rehearsed host, where no systemd runs: starts what stands in units/ and remembers its process.
# Knows `start`, `restart` and `is-active`, which is all that first boot asks for; anything else is refused.
# What stands in for a mount unit is run to its end.
set -eu
here=/run/rehearsal

is_active() {
    case $1 in *.mount)
        mountpoint -q "/$(echo "${1%.mount}" | tr - /)"
        return
        ;;
    esac
    [ -r "$here/state/$1.pid" ] && kill -0 "$(cat "$here/state/$1.pid")" 2>/dev/null
}

stop() {
    pid=$(cat "$here/state/$1.pid")
    kill "$pid"
    tries=0
    while kill -0 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        # Ten seconds, as the images' units allow.
        [ "$tries" -lt 100 ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.1
    done
}

verb=${1:-}
case $verb in
    start | restart | is-active) shift ;;
    *)
        echo "systemctl (rehearsal): '$verb' is not known here, only start, restart and is-active" >&2
        exit 2
        ;;
esac
for unit in "$@"; do
    case $unit in -*) echo "systemctl (rehearsal): option $unit is not known here" >&2; exit 2 ;; esac
    if [ ! -r "$here/units/$unit" ]; then
        echo "Unit $unit not found." >&2
        exit 5
    fi
    case $verb in
        start | restart)
            if is_active "$unit"; then
                [ "$verb" = restart ] || continue
                case $unit in *.mount) echo "systemctl (rehearsal): a mount is not restarted here" >&2; exit 2 ;; esac
                stop "$unit"
            fi
            # A unit whose condition does not hold is skipped without an error, as systemd does.
            [ ! -r "$here/units/$unit.condition" ] || sh "$here/units/$unit.condition" || continue
            case $unit in *.mount)
                sh "$here/units/$unit" </dev/null
                continue
                ;;
            esac
            setsid sh "$here/units/$unit" >>"$here/log/$unit.log" 2>&1 </dev/null &
            echo $! >"$here/state/$unit.pid"
            ;;
        is-active)
            if is_active "$unit"; then echo active; else echo inactive; exit 3; fi
            ;;
    esac
done
