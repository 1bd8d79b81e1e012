# Another program behind the load balancer: Atuin's server, which keeps a team's shell histories in Postgres. It is in nixpkgs,
# knows nothing of Drawbridge and needs no way out to the internet. Everything but the backend's image stays as it is.
#
#   nix build ./nixos/examples/atuin#ami
#
# Then publish that image as the backend's, and set `health_check_path = "/healthz"` in terraform/terraform.tfvars.
{
  description = "A program of somebody else on a Drawbridge backend";

  # In a repository of your own: `drawbridge.url = "github:<owner>/<repository>"`.
  inputs.drawbridge.url = "path:../../..";

  outputs =
    { self, drawbridge }:
    let
      backend =
        system:
        drawbridge.lib.mkAppliance {
          inherit system;
          role = "backend";
          modules = [ ./atuin.nix ];
        };
    in
    {
      nixosConfigurations.backend = backend "x86_64-linux";
      # Graviton
      nixosConfigurations.backend-aarch64 = backend "aarch64-linux";

      packages.x86_64-linux.ami = self.nixosConfigurations.backend.config.system.build.images.ami;
      packages.aarch64-linux.ami =
        self.nixosConfigurations.backend-aarch64.config.system.build.images.ami;
    };
}
