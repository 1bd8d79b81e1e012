# The bastion: sshd and nothing else. It forwards to the ports of the flows in terraform/flows.json that start here. The
# rehearsal does the same in src/rehearsal/hosts.rs.
{ config, lib, ... }:
let
  cfg = config.drawbridge;
  flows = import ./flows.nix { inherit lib; } cfg.flows;
  ports = flows.portsFrom "bastion";
in
{
  # Without the keyword sshd would forward to anywhere.
  services.openssh.settings.PermitOpen =
    if ports == [ ] then "none" else lib.concatMapStringsSep " " (port: "*:${toString port}") ports;
}
