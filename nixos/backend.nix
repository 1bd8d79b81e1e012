# The program behind the load balancer. It starts once bootstrap has sealed the database password, then on every boot.
{
  config,
  lib,
  utils,
  ...
}:
let
  cfg = config.drawbridge.backend;
  flows = import ./flows.nix { inherit lib; } config.drawbridge.flows;
  served = flows.portsBetween "load_balancer" "backend";
  # A link that bootstrap and a rotation replace in one step: configuration, certificate and password change together.
  folder = "/var/lib/drawbridge/api";
  credential = "${folder}/database-password.cred";
  isDrawbridge =
    cfg.command == [
      (lib.getExe cfg.package)
      "serve"
    ];
  socket = lib.optional cfg.socketActivation "drawbridge-api.socket";
in
{
  imports = [ ./hardening.nix ];

  options.drawbridge.backend = {
    package = lib.mkOption {
      type = lib.types.package;
      default = config.drawbridge.package;
      defaultText = lib.literalExpression "config.drawbridge.package";
      description = "The package whose program answers HTTP. Any program will do: see `command`.";
    };

    command = lib.mkOption {
      type = lib.types.nonEmptyListOf lib.types.str;
      default = [
        (lib.getExe cfg.package)
        "serve"
      ];
      defaultText = lib.literalExpression ''[ (lib.getExe config.drawbridge.backend.package) "serve" ]'';
      example = lib.literalExpression ''[ (lib.getExe pkgs.my-api) "serve" ]'';
      description = ''
        Program and arguments; no shell reads them. It runs as `drawbridge`, a user that owns nothing.

        The database's address, name, user and certificate are in ${folder}/config.toml for `drawbridge-host serve`, and in
        the environment under libpq's names for any other program: `PGHOST`, `PGPORT`, `PGDATABASE`, `PGUSER`,
        `PGSSLMODE` (`verify-full`) and `PGSSLROOTCERT`. The password is in the file
        `$CREDENTIALS_DIRECTORY/database-password`.
      '';
    };

    migrate = lib.mkOption {
      type = lib.types.nullOr (lib.types.nonEmptyListOf lib.types.str);
      default =
        if isDrawbridge then
          [
            (lib.getExe cfg.package)
            "migrate"
          ]
        else
          null;
      defaultText = lib.literalMD "`drawbridge-host migrate` where `command` is `drawbridge-host serve`, else nothing";
      example = lib.literalExpression ''[ (lib.getExe pkgs.my-api) "migrate" ]'';
      description = ''
        Program and arguments that bring the database's schema up to date. `drawbridge deploy` runs it, as `command` is run,
        before it switches to the system it belongs to: the version before it goes on serving meanwhile and has to work with
        the new schema, also if the host goes back to it.
      '';
    };

    port = lib.mkOption {
      type = lib.types.port;
      # 8000 stands in where there is no such flow; the assertion below then says so.
      default = lib.head (served ++ [ 8000 ]);
      defaultText = lib.literalMD "the port of the flow load_balancer -> backend in `terraform/flows.json`";
      description = "TCP port it listens on, on all addresses. The load balancer sends requests to the port of the flow load_balancer -> backend.";
    };

    healthPath = lib.mkOption {
      type = lib.types.strMatching "/[^[:space:]]*";
      default = "/ready";
      example = "/healthz";
      description = "Path that answers 200 once the program can serve requests. Bootstrap is complete only then.";
    };

    socketActivation = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = ''
        Whether systemd holds the port and passes it to the program (`LISTEN_FDS`), so that no connection is refused while
        the program restarts. Set it to false for a program that only binds a port by itself.
      '';
    };

    notify = lib.mkOption {
      type = lib.types.bool;
      default = isDrawbridge;
      defaultText = lib.literalMD "true where `command` is `drawbridge-host serve`";
      description = ''
        Whether the program tells systemd that it has started (`READY=1`) and, twice per `watchdogSec` at least, that it
        still answers (`WATCHDOG=1`); see `man sd_notify`. A program that does not would be taken for one that never starts.
      '';
    };

    watchdogSec = lib.mkOption {
      type = lib.types.strMatching "[1-9][0-9]*(ms|s|min)";
      default = "30s";
      example = "2min";
      description = "With `notify`: a program that has not said for this long that it answers is killed and started again.";
    };

    memoryMax = lib.mkOption {
      type = lib.types.strMatching "[1-9][0-9]*[KMGT]?|[1-9][0-9]?%|100%|infinity";
      default = "75%";
      example = "512M";
      description = "Memory the program may use: bytes, with K, M, G or T, or a percentage of the machine's. Beyond it the program is killed and started again, and not the machine with it.";
    };
  };

  config = {
    assertions = [
      {
        assertion = lib.elem cfg.port served;
        message = "drawbridge.backend.port is ${toString cfg.port}, but no flow in terraform/flows.json leads from load_balancer to backend on that port: change the flow's port, or leave this option out.";
      }
    ];

    systemd.services.drawbridge-bootstrap.environment.BOOTSTRAP_READY_URL =
      "http://127.0.0.1:${toString cfg.port}${cfg.healthPath}";

    # None of the two is wantedBy anything or after drawbridge-bootstrap: bootstrap starts them and waits.
    systemd.sockets.drawbridge-api = lib.mkIf cfg.socketActivation {
      description = "Port of the Drawbridge API";
      # As below: a connection must not try in vain to start what cannot start yet.
      unitConfig.ConditionPathExists = credential;
      socketConfig = {
        ListenStream = "0.0.0.0:${toString cfg.port}";
        # The kernel holds this many connections while the program restarts, if net.core.somaxconn lets it.
        Backlog = 4096;
        # A program that cannot start for an hour must find its port again.
        TriggerLimitIntervalSec = 0;
      };
    };

    systemd.services.drawbridge-api = {
      description = "Drawbridge API";
      after = [ "network.target" ] ++ socket;
      requires = socket;
      unitConfig.ConditionPathExists = credential;
      startLimitIntervalSec = 0;
      # Restarted in place: stopped first, as is usual, its socket would be closed as well.
      stopIfChanged = false;
      environment = {
        DRAWBRIDGE_CONFIG = "${folder}/config.toml";
        DRAWBRIDGE_HTTP__LISTEN = "0.0.0.0:${toString cfg.port}";
        # The load balancer, and nothing else, stands in front: no other host reaches this port.
        DRAWBRIDGE_HTTP__TRUSTED_PROXIES = "1";
      }
      // lib.optionalAttrs isDrawbridge {
        # For a scraper on this host: the load balancer's callers find no such path. 9464 is the usual port of
        # OpenTelemetry's Prometheus exporter.
        DRAWBRIDGE_METRICS__LISTEN = "127.0.0.1:9464";
      };
      serviceConfig = {
        Type = if cfg.notify then "notify" else "exec";
        ExecStart = utils.escapeSystemdExecArgs cfg.command;
        DynamicUser = true;
        User = "drawbridge";
        EnvironmentFile = "-${folder}/environment";
        LoadCredentialEncrypted = "database-password:${credential}";
        # Also when it ends without an error: a server that stops by itself serves nobody.
        Restart = "always";
        # 1 s after the first crash, up to 30 s while it keeps crashing: a database that is away for an hour costs no attention.
        RestartSec = "1s";
        RestartSteps = 5;
        RestartMaxDelaySec = "30s";
        # Above the program's own shutdown grace, in which it drains the requests under way.
        TimeoutStopSec = "45s";
        LimitNOFILE = 65536;
        MemoryMax = cfg.memoryMax;
        OOMPolicy = "stop";
        # Tokio may start 512 threads for blocking work beside one per CPU.
        TasksMax = 1024;
      }
      // lib.optionalAttrs cfg.notify {
        NotifyAccess = "main";
        WatchdogSec = cfg.watchdogSec;
      };
    };
  };
}
