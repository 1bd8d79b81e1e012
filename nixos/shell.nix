# What the scripts, the rehearsal and the tests call. Rust is the nixpkgs one; Cargo.toml's rust-version is older.
{
  mkShell,
  awscli2,
  cargo,
  clippy,
  curl,
  e2fsprogs,
  haproxy,
  iproute2,
  jq,
  nftables,
  openssh,
  postgresql_17,
  python3,
  rustc,
  rustfmt,
  shellcheck,
  systemd,
  terraform,
  util-linux,
  valkey,
}:
mkShell {
  name = "drawbridge";
  packages = [
    awscli2
    cargo
    clippy
    curl
    e2fsprogs
    haproxy
    iproute2
    jq
    nftables
    openssh
    postgresql_17
    # for the AWS emulator's venv
    python3
    rustc
    rustfmt
    shellcheck
    # systemd-creds
    systemd
    terraform
    util-linux
    valkey
  ];
}
