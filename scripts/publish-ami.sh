#!/usr/bin/env bash
# Builds the images with Nix and makes AMIs of them: `drawbridge image publish`.
#
# Touches: EBS snapshots and AMIs of your account, and terraform/images.auto.tfvars.json. Costs what the snapshots cost,
# about 0.05 USD a month per GB that is not zeros, until `drawbridge image prune --yes` removes them.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

abort() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# shellcheck source=scripts/lib/drawbridge.sh
source "$root/scripts/lib/drawbridge.sh"

command=()
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  cat <<'TEXT'
usage: scripts/publish-ami.sh [--role ROLE] [--system SYSTEM] [--image ROLE=FOLDER] [--region REGION] [--json] […]

Builds what no --image is given for, uploads it, registers AMIs and writes terraform/images.auto.tfvars.json. What is
published already is used; a run that was interrupted goes on. `drawbridge image publish --help` lists all options and
exit statuses.
TEXT
  find_drawbridge_help
  exit 0
fi
find_drawbridge
exec "${command[@]}" image publish "$@"
