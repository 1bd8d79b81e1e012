# PostgreSQL on a volume of its own. Bootstrap mounts the volume, writes pg_hba.conf, pg_ident.conf and the certificate,
# then starts postgresql.target; before that there is nothing to start on.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  settings = lib.importJSON ./settings/postgresql.json;
  mountPoint = "/var/lib/postgresql";
in
{
  services.postgresql = {
    enable = true;
    # Named, so that a new stateVersion cannot put another major version onto an old data directory.
    package = pkgs.postgresql_17;
    enableTCPIP = true;
    initdbArgs = [
      "--data-checksums"
      "--encoding=UTF8"
      "--no-locale"
    ];
    settings = settings // {
      # NixOS would put both into the store, but who may come is in the user data (backend_cidr).
      hba_file = lib.mkForce settings.hba_file;
      ident_file = lib.mkForce settings.ident_file;
    };
  };

  systemd.targets.postgresql.wantedBy = lib.mkForce [ ];
  # Not a condition: a start without the volume must fail, or initdb would fill the root disk and look healthy.
  systemd.services.postgresql.unitConfig.AssertPathIsMountPoint = mountPoint;

  # mkfs.ext4 and e2label; psql for whoever looks after a step
  systemd.services.drawbridge-bootstrap.path = [
    pkgs.e2fsprogs
    config.services.postgresql.package
  ];

  assertions = [
    {
      assertion = lib.hasPrefix "${mountPoint}/" config.services.postgresql.dataDir;
      message = "services.postgresql.dataDir must stay below ${mountPoint}, where bootstrap mounts the database's own volume; elsewhere the data would die with the instance.";
    }
  ];
}
