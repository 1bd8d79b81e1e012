#!/usr/bin/env bash
# Destroys the deployment: `terraform destroy`, which by itself refuses as long as the database's volume is in the state.
#
# Touches: everything in the state. The volume is kept unless --release-volume is given, and costs per GB as before.
set -euo pipefail

abort() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

usage() {
  cat <<'TEXT'
usage: scripts/destroy.sh [--release-volume] [options of `terraform destroy`, e.g. -auto-approve]

Takes the database's volume out of Terraform's state and destroys everything else; the volume and its data stay. If the
destroy is declined or fails, the volume is put back; running it again is safe. --release-volume destroys it as well.
Works on $DRAWBRIDGE_TERRAFORM_DIR if set, else on the terraform folder of this repository.
TEXT
}

# Bash before 4.4, which macOS has, takes an empty array for an unset variable; hence the `+` where they are used.
volume=aws_ebs_volume.database id='' release=false options=() variables=()
for option in "$@"; do
  case $option in
    -h | --help) usage; exit 0 ;;
    --release-volume) release=true && continue ;;
    -var=* | -var-file=*) variables+=("$option") ;;
  esac
  options+=("$option")
done

folder=${DRAWBRIDGE_TERRAFORM_DIR:-$(dirname -- "${BASH_SOURCE[0]}")/../terraform}
folder=$(cd -- "$folder" && pwd) || abort 'set DRAWBRIDGE_TERRAFORM_DIR to the folder with your *.tf files'
type -P terraform >/dev/null || abort 'terraform is missing: https://developer.hashicorp.com/terraform/install'
override=$folder/release_override.tf
rm -f -- "$override" # a killed run's
standing=$(terraform -chdir="$folder" state list) || abort "no state to destroy in $folder: terraform says why above"
[[ -n $standing ]] || abort "the state in $folder is empty: nothing to destroy"

# Also after Ctrl-C: terraform gets it too and ends in order, and bash comes here when it has ended.
tidy() {
  local status=$? && trap '' INT TERM HUP
  rm -f -- "$override"
  [[ $status == 0 || -z $id ]] || terraform -chdir="$folder" state list "$volume" | grep -q . ||
    terraform -chdir="$folder" import ${variables[@]+"${variables[@]}"} "$volume" "$id" ||
    printf 'The volume is not in the state. Before the next apply run the import above.\n' >&2
  exit "$status"
}
trap tidy EXIT && trap 'exit 130' INT TERM HUP
if $release; then
  printf 'resource "aws_ebs_volume" "database" {\n  lifecycle {\n    prevent_destroy = false\n  }\n}\n' >"$override"
elif grep -qx "$volume" <<<"$standing"; then
  id=$(terraform -chdir="$folder" state show -no-color "$volume" | sed -n 's/^ *id *= "\(vol-.*\)"$/\1/p')
  [[ -n $id ]] || abort "terraform does not tell the id of $volume: nothing was changed"
  printf 'The volume %s stays, and the data in it. To take it up again, before the next apply:\n  terraform -chdir=%q import %s %s\n' "$id" "$folder" "$volume" "$id"
  terraform -chdir="$folder" state rm "$volume" >/dev/null
fi
terraform -chdir="$folder" destroy ${options[@]+"${options[@]}"}
printf 'Destroyed. To see whether anything is left: drawbridge audit --name NAME --region REGION\n'
