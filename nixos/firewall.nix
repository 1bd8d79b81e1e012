# The host's own firewall out of terraform/flows.json: the ports that some flow leads to, and no other.
# Who may use them is the security groups' part, made from the same file: addresses are not known when an image is built.
{ config, lib, ... }:
let
  cfg = config.drawbridge;
  flows = import ./flows.nix { inherit lib; } cfg.flows;
in
{
  options.drawbridge.flows = lib.mkOption {
    type = lib.types.listOf (
      lib.types.submodule {
        options = {
          from = lib.mkOption {
            type = lib.types.str;
            example = "bastion";
            description = "Who opens the connection: a role, `admins`, `internet` or `load_balancer`.";
          };
          to = lib.mkOption {
            type = lib.types.str;
            example = "backend";
            description = "Who is connected to: a role or `load_balancer`.";
          };
          port = lib.mkOption {
            type = lib.types.int;
            example = 22;
            description = "TCP port, 1 to 65535.";
          };
          why = lib.mkOption {
            type = lib.types.str;
            example = "ssh through the bastion";
            description = "What the flow is for, one short clause.";
          };
          needs = lib.mkOption {
            type = lib.types.nullOr lib.types.str;
            default = null;
            example = "certificate";
            description = "What the deployment must have for the flow to exist, e.g. the load balancer's `certificate`.";
          };
        };
      }
    );
    default = lib.importJSON ../terraform/flows.json;
    defaultText = lib.literalMD "the contents of `terraform/flows.json`";
    description = "All that may talk to each other. Terraform reads the same file, so change the file and not this option.";
  };

  config = {
    assertions = map (message: {
      assertion = false;
      inherit message;
    }) flows.problems;

    networking.nftables.enable = true;
    networking.firewall = {
      enable = true;
      allowedTCPPorts = flows.portsTo cfg.role;
    };
  };
}
