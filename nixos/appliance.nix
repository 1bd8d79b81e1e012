# mkAppliance { role, system ? "x86_64-linux", modules ? [ ] }: a NixOS system for one of the three roles.
# `modules` come on top of the role's own, e.g. to put another program behind the load balancer.
{ nixpkgs, self }:
{
  role,
  system ? "x86_64-linux",
  modules ? [ ],
}:
let
  inherit (nixpkgs) lib;
  known = lib.attrNames self.nixosModules;
in
lib.throwIfNot (lib.elem role known)
  "mkAppliance: there is no role `${role}`; take one of ${lib.concatStringsSep ", " known}."
  (
    lib.nixosSystem {
      modules = [
        self.nixosModules.${role}
        { nixpkgs.hostPlatform = system; }
      ]
      ++ modules;
    }
  )
