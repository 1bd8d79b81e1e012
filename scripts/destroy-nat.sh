#!/usr/bin/env bash
# Takes the deployment's NAT gateway down and proves that it is gone: `drawbridge nat close`.
#
# Touches: terraform/nat.auto.tfvars.json, and by `terraform apply` the gateway, its public address, its route and its
# deadline schedule. Costs nothing; ends what the gateway and its address cost per hour.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

abort() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

usage() {
  cat <<'TEXT'
usage: scripts/destroy-nat.sh [--wait [--wait-limit TIME]] [--force] [--json] [more options of `drawbridge nat close`]

Refuses (exit status 3) until backend and database have reported a complete bootstrap and the API is ready; --wait waits,
--force does not care. Then removes the NAT gateway with terraform and proves that it is gone. Running it again is safe.
`drawbridge nat close --help` lists all options and exit statuses.

Runs $DRAWBRIDGE_BIN if set, else the newer of target/release/drawbridge and target/debug/drawbridge, or the drawbridge on the PATH;
else builds it with cargo, or runs it with nix.
TEXT
}

# Sets `command` to the program and its leading arguments.
find_drawbridge() {
  local candidate
  if [[ -n ${DRAWBRIDGE_BIN:-} ]]; then
    [[ -x $DRAWBRIDGE_BIN ]] || abort "DRAWBRIDGE_BIN=$DRAWBRIDGE_BIN is not an executable file"
    command=("$DRAWBRIDGE_BIN")
    return
  fi
  local target=${CARGO_TARGET_DIR:-$root/target}
  # The newer one: an old release build would close the window as an old version did.
  candidate=$target/release/drawbridge
  [[ $target/debug/drawbridge -nt $candidate ]] && candidate=$target/debug/drawbridge
  if [[ -x $candidate ]]; then
    command=("$candidate")
    return
  fi
  if candidate=$(type -P drawbridge); then
    command=("$candidate")
  elif type -P cargo >/dev/null; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" --bin drawbridge --no-default-features --features operator
    command=("$target/debug/drawbridge")
  elif type -P nix >/dev/null; then
    command=(nix run "$root#drawbridge" --)
  else
    abort "found no drawbridge, and neither cargo nor nix to build it: install Rust (https://rustup.rs) or Nix"
  fi
}

command=()
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  usage
  exit 0
fi
find_drawbridge
exec "${command[@]}" nat close "$@"
