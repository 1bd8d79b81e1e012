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
TEXT
  find_drawbridge_help
}

# shellcheck source=scripts/lib/drawbridge.sh
source "$root/scripts/lib/drawbridge.sh"

command=()
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  usage
  exit 0
fi
find_drawbridge
exec "${command[@]}" nat close "$@"
