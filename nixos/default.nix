# The three roles as NixOS modules: what every host has, and what makes the role.
{ lib, self }:
let
  everyHost = {
    bootstrap = ./bootstrap.nix;
    common = ./common.nix;
    firewall = ./firewall.nix;
    image = ./image.nix;
    kernel = ./kernel.nix;
    lean = ./lean.nix;
    sshd = ./sshd.nix;
    system = ./system.nix;

    # Our own build of the program, also where the importing flake has another nixpkgs.
    program =
      { pkgs, ... }:
      {
        drawbridge.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.drawbridge-host;
      };
  };

  mkRole = role: modules: {
    _file = "${self}/nixos/default.nix#${role}";
    imports = lib.attrValues everyHost ++ modules;
    drawbridge.role = role;
  };
in
lib.mapAttrs mkRole {
  bastion = [ ./bastion.nix ];
  backend = [
    ./backend.nix
    ./operators.nix
  ];
  database = [
    ./database.nix
    ./operators.nix
  ];
}
