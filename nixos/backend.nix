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
  credential = "/var/lib/drawbridge/credentials/database-password.cred";
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
      example = lib.literalExpression ''[ (lib.getExe pkgs.my-api) "--listen" "0.0.0.0:8000" ]'';
      description = ''
        Program and arguments; no shell reads them. It runs as `drawbridge`, finds the database in
        /var/lib/drawbridge/config.toml and the password in `$CREDENTIALS_DIRECTORY/database-password`.
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

    # Not wantedBy anything and not after drawbridge-bootstrap: bootstrap starts it and waits for it.
    systemd.services.drawbridge-api = {
      description = "Drawbridge API";
      after = [ "network.target" ];
      unitConfig.ConditionPathExists = credential;
      startLimitIntervalSec = 0;
      environment = {
        DRAWBRIDGE_CONFIG = "/var/lib/drawbridge/config.toml";
        DRAWBRIDGE_HTTP__LISTEN = "0.0.0.0:${toString cfg.port}";
      };
      serviceConfig = {
        Type = "exec";
        ExecStart = utils.escapeSystemdExecArgs cfg.command;
        DynamicUser = true;
        User = "drawbridge";
        LoadCredentialEncrypted = "database-password:${credential}";
        Restart = "on-failure";
        # 1 s after the first crash, up to 30 s while it keeps crashing: a database that is away for an hour costs no attention.
        RestartSec = "1s";
        RestartSteps = 5;
        RestartMaxDelaySec = "30s";
        # Above the program's own shutdown grace, in which it drains the requests under way.
        TimeoutStopSec = "45s";
      };
    };
  };
}
