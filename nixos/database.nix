# PostgreSQL on a volume of its own. Bootstrap checks the volume, has it mounted, writes pg_hba.conf, pg_ident.conf, the
# tuning for this machine's size and the certificate, then starts postgresql.target; before that there is nothing to
# start on.
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
  systemd.services.postgresql = {
    # The postmaster is the last to be killed for memory, its sessions are as likely as any process. One that is killed
    # leaves the postmaster to recover; systemd must not stop the rest.
    environment = {
      PG_OOM_ADJUST_FILE = "/proc/self/oom_score_adj";
      PG_OOM_ADJUST_VALUE = "0";
    };
    serviceConfig = {
      OOMPolicy = "continue";
      OOMScoreAdjust = -900;
      # NixOS gives up after five crashes. Nobody is here to start it again; 1 s at first, up to 30 s while it keeps crashing.
      RestartSec = "1s";
      RestartSteps = 5;
      RestartMaxDelaySec = "30s";
    };
    unitConfig = {
      StartLimitIntervalSec = lib.mkForce 0;
      # Not a condition: a start without the volume must fail, or initdb would fill the root disk and look healthy.
      AssertPathIsMountPoint = mountPoint;
    };
  };

  # Wanted by nothing: bootstrap starts it once it has looked at the volume and made the link. postgresql.service requires
  # it by RequiresMountsFor=, so the server stops before the volume goes.
  systemd.mounts = [
    {
      description = "The database's own volume";
      what = "/run/drawbridge/database-volume";
      where = mountPoint;
      type = "ext4";
      options = "nodev,nosuid,noexec,noatime";
      # The journal's replay after a crash, on a slow disk.
      mountConfig.TimeoutSec = "5min";
    }
  ];

  systemd.tmpfiles.settings.drawbridge = {
    ${mountPoint}.d = {
      mode = "0755";
      user = "root";
      group = "root";
    };
    # setgid: what bootstrap writes there gets the group without bootstrap having the right to give files away
    "/var/lib/drawbridge/postgresql".d = {
      mode = "2750";
      user = "root";
      group = "postgres";
    };
  };

  systemd.services.drawbridge-bootstrap = {
    path = [
      pkgs.e2fsprogs # mkfs.ext4
      pkgs.util-linux # blkid
    ];
  };

  assertions = [
    {
      assertion = lib.hasPrefix "${mountPoint}/" config.services.postgresql.dataDir;
      message = "services.postgresql.dataDir must stay below ${mountPoint}, where bootstrap mounts the database's own volume; elsewhere the data would die with the instance.";
    }
  ];
}
