# The bastion: sshd and nothing else. What may be reached through it stands in settings/sshd.json, which the rehearsal
# reads too; here it is held against the flows, so that the two files cannot drift apart.
{ config, lib, ... }:
let
  cfg = config.drawbridge;
  flows = import ./flows.nix { inherit lib; } cfg.flows;
  wanted = lib.concatMapStringsSep " " (port: "*:${toString port}") (flows.portsFrom "bastion");
  permitted = config.services.openssh.settings.PermitOpen;
in
{
  assertions = [
    {
      assertion = permitted == wanted;
      message = "The bastion forwards to `${permitted}`, but the flows in terraform/flows.json that start there need `${wanted}`: set PermitOpen under `bastion` in nixos/settings/sshd.json to that.";
    }
  ];
}
