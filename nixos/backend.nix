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
      default = 8000;
      description = "TCP port it listens on, on all addresses. The flow load_balancer -> backend in terraform/flows.json must name the same.";
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
        assertion = lib.elem cfg.port (flows.portsTo "backend");
        message = "drawbridge.backend.port is ${toString cfg.port}, but no flow in terraform/flows.json leads to the backend on that port: change the port of load_balancer -> backend there, or this option.";
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
