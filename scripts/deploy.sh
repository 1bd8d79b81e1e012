#!/usr/bin/env bash
# Applies terraform/, with the NAT window open for as long as new private hosts need it and no longer.
#
# Touches: what `terraform apply` changes, without asking. Costs: the window, about 0.06 USD an hour, only if the backend
# or the database is made anew.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

abort() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# shellcheck source=scripts/lib/drawbridge.sh
source "$root/scripts/lib/drawbridge.sh"

usage() {
  cat <<'TEXT'
usage: scripts/deploy.sh [--for TIME] [--without-ssh] [options of `terraform apply`, e.g. -replace=aws_instance.backend]

The first time: applies with the window open, waits for the hosts and closes. Later: plans; if the backend or the
database is made anew, runs the apply within `drawbridge nat open --for TIME` (45m), else applies just the plan. A
replaced database takes the backend along, which needs its new password. Asks nothing: look at `terraform plan` first.

Run `terraform init` before. Works on $DRAWBRIDGE_TERRAFORM_DIR if set, else on the terraform folder of this repository.
The window is closed also when the apply fails. --without-ssh: as in `drawbridge nat close --help`.

Exit status: 0 done, or nothing to do; 4 refused, nothing was changed; else that of terraform or of `drawbridge nat`.
TEXT
  find_drawbridge_help
}

refuse() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 4
}

time=45m proofs=() options=()
while (($# > 0)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --for) (($# > 1)) || abort '--for needs a time, e.g. 45m' && time=$2 && shift ;;
    --without-ssh) proofs=(--without-ssh) ;;
    -*) options+=("$1") ;;
    *) abort "$1 is no option: scripts/deploy.sh --help lists them" ;;
  esac
  shift
done

for program in terraform jq; do
  type -P "$program" >/dev/null || abort "$program is missing: install it, or run in nix develop"
done
folder=${DRAWBRIDGE_TERRAFORM_DIR:-$root/terraform}
folder=$(cd -- "$folder" && pwd) || abort 'set DRAWBRIDGE_TERRAFORM_DIR to the folder with your *.tf files'
# drawbridge would look for it from the current folder.
export DRAWBRIDGE_TERRAFORM_DIR=$folder
position=$folder/nat.auto.tfvars.json

# A runner's disk goes with the job. A state on it would be forgotten, and the next job would make everything once more.
if [[ -n ${CI:-} ]]; then
  backend=$(jq -r '.backend.type // "local"' "${TF_DATA_DIR:-$folder/.terraform}/terraform.tfstate" 2>/dev/null) || backend=local
  [[ $backend != local ]] ||
    refuse "the state is on this disk, which a CI job loses: keep it in a bucket (terraform/backend_override.tf, README 'Sharing the state') and run terraform init"
fi

outputs=$(terraform -chdir="$folder" output -json -no-color) || abort 'the state cannot be read: terraform says why above'
is_open=$(jq -r '.nat_gateway' "$position") || is_open=unreadable
[[ $is_open == @(true|false) ]] || abort "$position must hold {\"nat_gateway\": false} or {\"nat_gateway\": true}"
is_deployed=$(jq 'has("deployment")' <<<"$outputs")
# What a job writes into the file is not committed, so what is committed has to be true before and after it.
if [[ $is_open == true && ($is_deployed == true || -n ${CI:-}) ]]; then
  refuse "$position says open: a deploy opens the window for itself. Close what stands (scripts/destroy-nat.sh) and commit {\"nat_gateway\": false}"
fi
command=()
find_drawbridge

terraform_apply=(terraform "-chdir=$folder" apply -input=false -auto-approve -no-color)

if [[ $is_deployed == false ]]; then
  # Nothing stands, or an apply that never came to its end: there is no deployment yet whose window could be leased.
  printf 'The first apply: with the window open.\n'
  printf '{"nat_gateway": true}\n' >"$position"
  # shellcheck disable=SC2317  # called by the trap
  tidy() {
    local status=$? && trap '' INT TERM HUP PIPE
    set +e # a terminal that is gone takes no words, and must not keep the window open
    if [[ $status != 0 ]]; then
      printf 'Failed with status %s: closing the window.\n' "$status" >&2
      "${command[@]}" nat close --force --leave-rest ${proofs[@]+"${proofs[@]}"} >&2 ||
        printf 'THE WINDOW MAY STILL BE OPEN: run this again. Until then it costs; AWS deletes the gateway after nat_gateway_max_hours.\n' >&2
    fi
    exit "$status"
  }
  trap tidy EXIT && trap 'exit 130' INT TERM HUP
  "${terraform_apply[@]}" ${options[@]+"${options[@]}"}
  "${command[@]}" nat close --wait ${proofs[@]+"${proofs[@]}"}
  exit
fi

scratch=$(mktemp -d) # the plan may hold what the state holds; mktemp lets nobody else in
trap 'rm -rf -- "$scratch"' EXIT
status=0
terraform -chdir="$folder" plan -input=false -no-color -detailed-exitcode -out="$scratch/plan" ${options[@]+"${options[@]}"} || status=$?
case $status in
  0) printf 'Nothing to do.\n'; exit 0 ;;
  2) ;;
  *) exit "$status" ;;
esac
# The private hosts that are made anew, one a line.
made=$(terraform -chdir="$folder" show -json -no-color "$scratch/plan" | jq -r '
  .resource_changes[] | select(.change.actions | index("create")) | .address
  | select(. == "aws_instance.backend" or . == "aws_instance.database")')
if [[ -z $made ]]; then
  terraform -chdir="$folder" apply -input=false -no-color "$scratch/plan"
  exit
fi
if [[ $made == aws_instance.database ]]; then
  options+=(-replace=aws_instance.backend)
fi
printf 'Made anew, with the window open: %s\n' "${made//$'\n'/, }"
"${command[@]}" nat open --leave-rest --for "$time" ${proofs[@]+"${proofs[@]}"} -- "${terraform_apply[@]}" ${options[@]+"${options[@]}"}
