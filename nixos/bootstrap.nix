# First boot: `drawbridge-host bootstrap` reads the user data, does the role's steps and reports them.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.drawbridge;
  isDatabase = cfg.role == "database";
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

    path = [ pkgs.openssh ]; # ssh-keygen

    # Tried again for as long as it takes: a window that opens an hour late still finds a host that wants in.
    startLimitIntervalSec = 0;
    # A new system brings the next run of it, as a reboot does; nothing has to stop for that.
    stopIfChanged = false;

    # Root, because it writes root's files and tells systemd what to start, but without root's rights over others: what
    # it hands to postgres gets its group from a setgid folder and its owner from mkfs.
    serviceConfig = import ./denied.nix // {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${lib.getExe' cfg.package "drawbridge-host"} bootstrap";
      Restart = "on-failure";
      RestartSec = "30s";
      RestartSteps = 5;
      RestartMaxDelaySec = "5min";
      # Above the sum of the program's own limits, which say what was waited for; this one only catches a hang.
      TimeoutStartSec = "45min";
      # Made 0755 here, whatever the umask below: sshd reads the keys as whoever signs in.
      StateDirectory = [
        "drawbridge"
        "drawbridge/ssh"
        "drawbridge/ssh/authorized_keys.d"
      ];
      StateDirectoryMode = "0755";
      # The link to the database's volume must outlive a run of bootstrap: the mount unit names it.
      RuntimeDirectory = "drawbridge";
      RuntimeDirectoryMode = "0755";
      RuntimeDirectoryPreserve = true;
      # The serial console gets lines of its own, written by the program for people.
      StandardOutput = "journal";
      StandardError = "journal";

      # It mounts nothing itself, it asks systemd to; what systemd mounts later still shows in here.
      PrivateMounts = true;
      ReadWritePaths = [
        "/etc/ssh"
      ]
      ++ lib.optional (cfg.role == "backend") "/var/lib/systemd"; # systemd-creds keeps its key there
      # Below PrivateDevices there is no disk.
      PrivateDevices = !isDatabase;
      BindPaths = lib.mkIf (!isDatabase) "-/dev/console";
      DeviceAllow = [
        "/dev/console rw"
      ]
      # An EBS volume is nvme, or xvd on older types; a rehearsal's is a loop device.
      ++ lib.optionals isDatabase [
        "block-blkext rw"
        "block-loop rw"
        "block-nvme rw"
        "block-sd rw"
        "block-xvd rw"
      ];
      # Postgres is tuned by what /proc/meminfo says.
      ProcSubset = if isDatabase then "all" else "pid";
      TasksMax = 128;
    };
  };
}
