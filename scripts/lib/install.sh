# shellcheck shell=bash
# Installs what the other scripts need, and says exactly what to do where it may not. Sourced, from the repository root.
# Touches: Debian packages (as root), .drawbridge/{venv,checkov,contract,workflows,peer,rootfs-*}. What it installs does not
# become a running service.

# The one release that src/rehearsal/emulator.py reaches into; it names it.
MOTO="moto[server]==$(sed -n 's/^MOTO = "\(.*\)"$/\1/p' src/rehearsal/emulator.py)"
# The aws command, of a release that shares moto's botocore.
AWSCLI='awscli==1.45.11'
# The release whose findings are all answered beside the resources of terraform/.
CHECKOV='checkov==3.3.30'
ZIZMOR='zizmor==1.32.0'
CHECK_JSONSCHEMA='check-jsonschema==0.39.0'
# What knows an API by its document alone, and reads /metrics. The validator and the schemas it checks examples with change
# together.
CONTRACT_TOOLS=(
    'openapi-spec-validator==0.9.0' 'openapi-schema-validator==0.9.0' 'schemathesis==4.32.5' 'hypothesis==6.170.15'
    'openapi-python-client==0.29.1' 'mypy==2.4.1' 'prometheus_client==0.26.0'
)

abort() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

say() {
    printf '%s\n' "$*" >&2
}

is_there() {
    case $1 in
        # Debian keeps the server's programs out of the PATH.
        postgres) [ -n "$(command -v postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres')" ] ;;
        # Either does.
        redis-server) [ -n "$(command -v redis-server || command -v valkey-server)" ] ;;
        # Debian splits Python's own venv off.
        venv) python3 -c 'import ensurepip' 2>/dev/null ;;
        # What a C compiler needs to link a program.
        libc) [ -e /usr/include/stdio.h ] || [ -n "${NIX_CC:-}" ] ;;
        *) PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

# install_packages PROGRAM:PACKAGE…: installs the packages of the programs that are missing.
install_packages() {
    local pair missing=()
    for pair in "$@"; do
        is_there "${pair%%:*}" || missing+=("${pair##*:}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    local command="apt-get install --no-install-recommends ${missing[*]}"
    command -v apt-get >/dev/null ||
        abort "these Debian packages are missing: ${missing[*]}. Install what your system calls them, or run in \`nix develop\`"
    [ "$(id -u)" = 0 ] || abort "these packages are missing: ${missing[*]}. Install them with: sudo $command"
    say "installing ${missing[*]}"
    without_services apt_install "${missing[@]}"
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || abort "apt-get update failed; when it works again: apt-get install $*"
    # --no-upgrade: what is there stays as it is.
    apt-get install -qq -y --no-upgrade --no-install-recommends "$@" >/dev/null ||
        abort "apt-get install $* failed; its messages are above"
}

# Runs a command while packages may neither start a service nor make a database of their own. A subshell, so that the
# trap takes the policy away again whatever ends it, Ctrl-C included.
without_services() (
    policy=/usr/sbin/policy-rc.d
    clusters=/etc/postgresql-common/createcluster.conf
    made=()
    trap 'rm -f "${made[@]}"' EXIT
    trap 'exit 130' INT TERM HUP
    if [ ! -e "$policy" ]; then
        made+=("$policy")
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    if [ ! -e "$clusters" ]; then
        made+=("$clusters")
        mkdir -p "${clusters%/*}"
        printf 'create_main_cluster = false\n' >"$clusters"
    fi
    "$@"
)

# What a rehearsal runs, and what it is built with.
install_rehearsal_packages() {
    install_packages \
        haproxy:haproxy ip:iproute2 mkfs.ext4:e2fsprogs nft:nftables postgres:postgresql \
        ssh:openssh-client sshd:openssh-server systemd-creds:systemd cc:gcc libc:libc6-dev
}

# The root file system of hosts that boot a systemd of their own; src/rehearsal/systemd/rootfs.rs names the folder.
ROOTFS=.drawbridge/$(sed -n 's/^pub const FOLDER: &str = "\(.*\)";$/\1/p' src/rehearsal/systemd/rootfs.rs)
# systemd 257, OpenSSH 10 and PostgreSQL 17 are near to what the images have.
ROOTFS_PACKAGES=systemd,systemd-sysv,libnss-systemd,libpam-systemd,dbus,tzdata,openssh-server,postgresql-17,iproute2,nftables,sudo,e2fsprogs,util-linux,procps

# install_rootfs: makes it once. Where that cannot be done it says why in one line, which is also in $no_rootfs, and fails.
install_rootfs() {
    no_rootfs=
    [ ! -e "$ROOTFS/complete" ] || return 0
    [ "$(id -u)" = 0 ] || cannot_make_rootfs 'it takes root' || return
    command -v apt-get >/dev/null || cannot_make_rootfs 'mmdebstrap needs the packages of a Debian' || return
    (install_packages mmdebstrap:mmdebstrap systemd-nspawn:systemd-container) ||
        cannot_make_rootfs 'mmdebstrap or systemd-nspawn could not be installed' || return
    local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg temporary log status=0
    # Where this machine's own packages come from.
    # shellcheck disable=SC2016  # apt's own placeholder
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1)
    [ -n "$mirror" ] && [ -e "$keyring" ] ||
        cannot_make_rootfs "apt knows no Debian mirror here, or $keyring is missing" || return
    say "making $ROOTFS with mmdebstrap from $mirror, once; half a minute"
    mkdir -p .drawbridge
    rm -rf .drawbridge/rootfs-*
    # Half of it has this other name, and is removed by whoever comes next.
    temporary=$ROOTFS.unfinished
    log=$(mktemp)
    mkdir -p "$temporary"
    mmdebstrap --quiet --mode=root --variant=minbase --include="$ROOTFS_PACKAGES" --customize-hook="$PWD/src/rehearsal/systemd/rootfs.sh" \
        trixie "$temporary/tree" "deb [signed-by=$keyring] $mirror trixie main" 2>"$log" || status=$?
    if [ "$status" != 0 ]; then
        rm -rf "$temporary"
        cannot_make_rootfs "mmdebstrap: $(grep -v '^I:' "$log" | tail -n 1)" || { rm -f "$log"; return 1; }
    fi
    rm -f "$log"
    : >"$temporary/complete"
    mv "$temporary" "$ROOTFS"
}

cannot_make_rootfs() {
    no_rootfs="no root file system to boot: $1"
    say "$no_rootfs"
    return 1
}

need_root() {
    [ "$(id -u)" = 0 ] ||
        abort 'a rehearsal makes network namespaces and needs root: run it with sudo, or as root in a virtual machine'
}

under_sudo() {
    [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]
}

# Under sudo the caller's tools are still the ones to use: Rust is usually installed in a home folder.
use_callers_tools() {
    under_sudo || return 0
    # shellcheck disable=SC2016  # the caller's PATH, not this one
    PATH=$PATH:$(runuser -l "$SUDO_USER" -c 'printf %s "$PATH"')
}

# as_caller COMMAND…: as whoever called sudo, so that target/ and .drawbridge/ stay theirs.
as_caller() {
    if under_sudo; then
        runuser -u "$SUDO_USER" -- env HOME="$(getent passwd "$SUDO_USER" | cut -d: -f6)" "$@"
    else
        "$@"
    fi
}

# build ARGUMENTS…: cargo build.
build() {
    as_caller cargo build --locked "$@"
}

need_rust() {
    use_callers_tools
    command -v cargo >/dev/null || abort 'cargo is missing: install Rust from https://rustup.rs, or run in nix develop'
}

need_terraform() {
    use_callers_tools
    command -v terraform >/dev/null ||
        abort 'terraform is missing: install 1.11 or newer from https://developer.hashicorp.com/terraform/install, or run in nix develop'
}

# install_with_pip VENV PACKAGE…: packages from PyPI into a virtual environment of their own, once.
install_with_pip() {
    local venv=$1
    shift
    if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/installed" 2>/dev/null)" = "$*" ]; then
        return
    fi
    install_packages python3:python3 venv:python3-venv
    say "installing $* into $venv"
    as_caller mkdir -p .drawbridge
    as_caller rm -rf "$venv"
    as_caller python3 -m venv "$venv"
    # Not by bin/pip itself: its first line names this folder, and a path with a space breaks that.
    as_caller "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
        abort "pip could not install $*; its messages are above"
    printf '%s' "$*" | as_caller tee "$venv/installed" >/dev/null
}

# moto and the aws command.
install_emulator() {
    local aws=.drawbridge/venv/bin/aws
    install_with_pip .drawbridge/venv "$MOTO" "$AWSCLI"
    # In place of pip's own, for the same reason.
    # shellcheck disable=SC2016  # for the program that is written
    grep -qs 'python" -m awscli' "$aws" ||
        printf '#!/bin/sh\nexec "${0%%/*}/python" -m awscli "$@"\n' | as_caller tee "$aws" >/dev/null
}

# checkov apart from moto: each wants its own release of botocore.
install_checkov() {
    install_with_pip .drawbridge/checkov "$CHECKOV"
}

# What tries the API by its document: a validator, schemathesis, and a generator of clients.
install_contract_tools() {
    install_with_pip .drawbridge/contract "${CONTRACT_TOOLS[@]}"
}

# What reads the workflows: zizmor is one program of its own, check-jsonschema brings GitHub's schema and a YAML reader.
install_workflow_checks() {
    install_with_pip .drawbridge/workflows "$ZIZMOR" "$CHECK_JSONSCHEMA"
}

# The service that benches/api measures beside ours.
install_peer() {
    local requirements
    mapfile -t requirements < <(grep -v '^#' benches/peer/requirements.txt)
    install_with_pip .drawbridge/peer "${requirements[@]}"
}
