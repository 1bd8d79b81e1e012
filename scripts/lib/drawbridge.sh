# shellcheck shell=bash
# Finds the operator's program, or builds it. To be sourced by a script of scripts/ that has `root` and `abort`.

# The end of a script's usage.
find_drawbridge_help() {
  cat <<'TEXT'

Runs $DRAWBRIDGE_BIN if set, else the newer of target/release/drawbridge and target/debug/drawbridge, or the drawbridge on the PATH;
else builds it with cargo, or runs it with nix.
TEXT
}

# Sets `command` to the program and its leading arguments.
# shellcheck disable=SC2034 # used by whoever sources this
find_drawbridge() {
  local candidate
  if [[ -n ${DRAWBRIDGE_BIN:-} ]]; then
    [[ -x $DRAWBRIDGE_BIN ]] || abort "DRAWBRIDGE_BIN=$DRAWBRIDGE_BIN is not an executable file"
    command=("$DRAWBRIDGE_BIN")
    return
  fi
  local target=${CARGO_TARGET_DIR:-$root/target}
  # The newer one: an old release build would do it as an old version did.
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
