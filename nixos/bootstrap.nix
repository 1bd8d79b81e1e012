# First boot: `drawbridge-host bootstrap` reads the user data, does the role's steps and reports them.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.drawbridge;
in
{
  systemd.services.drawbridge-bootstrap = {
    description = "Drawbridge bootstrap of the ${cfg.role} host";
    wantedBy = [ "multi-user.target" ];
    # It publishes the host key that sshd-keygen makes on the first boot.
    wants = [
      "network-online.target"
      "sshd-keygen.service"
    ];
    after = [
      "network-online.target"
      "sshd-keygen.service"
    ];

    path = [
      pkgs.openssh # ssh-keygen
      pkgs.util-linux # blkid, mount
    ];

    # Tried again for as long as it takes: a window that opens an hour late still finds a host that wants in.
    startLimitIntervalSec = 0;

    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${lib.getExe' cfg.package "drawbridge-host"} bootstrap";
      Restart = "on-failure";
      RestartSec = "30s";
      RestartSteps = 5;
      RestartMaxDelaySec = "5min";
      # Above the sum of the program's own limits, which say what was waited for; this one only catches a hang.
      TimeoutStartSec = "45min";
      StateDirectory = "drawbridge";
      StateDirectoryMode = "0755";
      # The serial console gets lines of its own, written by the program for people.
      StandardOutput = "journal";
      StandardError = "journal";

      # Nothing here may give the unit a mount namespace (ProtectSystem, PrivateTmp, ...): the database's volume
      # would be mounted for this unit alone.
      LockPersonality = true;
      MemoryDenyWriteExecute = true;
      NoNewPrivileges = true;
      RestrictAddressFamilies = [
        "AF_INET"
        "AF_INET6"
        "AF_NETLINK"
        "AF_UNIX"
      ];
      RestrictNamespaces = true;
      RestrictRealtime = true;
      SystemCallArchitectures = "native";
    };
  };
}
