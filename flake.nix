{
  description = "A Rust API and its Postgres on EC2 as NixOS appliances, behind a NAT gateway that stands only while they bootstrap";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      # The two architectures EC2 sells. On a Mac the operator's CLI is built with cargo, without the rehearsal.
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      roles = [
        "bastion"
        "backend"
        "database"
      ];

      pkgsFor =
        system:
        import nixpkgs {
          inherit system;
          overlays = [ self.overlays.default ];
          # Terraform (BSL) is what the operators run; nothing else unfree comes in unseen.
          config.allowUnfreePredicate = package: lib.getName package == "terraform";
        };
      forEachSystem = build: lib.genAttrs systems (system: build (pkgsFor system));

      # `backend` is the x86_64 host, `backend-aarch64` its sibling.
      hostName = role: system: if system == "x86_64-linux" then role else "${role}-aarch64";
      hostsOn =
        system:
        lib.genAttrs' roles (
          role: lib.nameValuePair (hostName role system) (self.lib.mkAppliance { inherit role system; })
        );

      # Flakes of their own, evaluated with this one in place of their input.
      examples = lib.genAttrs [ "atuin" ] (
        name:
        lib.fix (
          example:
          (import ./nixos/examples/${name}/flake.nix).outputs {
            self = example;
            drawbridge = self;
          }
        )
      );
    in
    {
      # An archive of the tree has no commit.
      overlays.default = import ./nixos/overlay.nix { commit = self.rev or self.dirtyRev or null; };

      nixosModules = import ./nixos { inherit lib self; };

      lib.mkAppliance = import ./nixos/appliance.nix { inherit nixpkgs self; };

      nixosConfigurations = lib.mergeAttrsList (map hostsOn systems);

      # Texts for nixos/evaluated/, of one architecture: the other differs in nothing that is in them.
      evaluated = import ./nixos/evaluated.nix {
        inherit lib nixpkgs;
        hosts = lib.genAttrs roles (role: self.nixosConfigurations.${role});
      };

      packages = forEachSystem (
        pkgs:
        let
          ami =
            role:
            self.nixosConfigurations.${hostName role pkgs.stdenv.hostPlatform.system}.config.system.build.images.ami;
        in
        {
          inherit (pkgs) drawbridge drawbridge-host;
          default = self.packages.${pkgs.stdenv.hostPlatform.system}.ami-backend;
          option-docs = import ./nixos/option-docs.nix {
            inherit pkgs self;
            # It has every option: the other roles have none of their own.
            inherit (self.nixosConfigurations.${hostName "backend" pkgs.stdenv.hostPlatform.system}) options;
          };
        }
        // lib.genAttrs' roles (role: lib.nameValuePair "ami-${role}" (ami role))
      );

      devShells = forEachSystem (pkgs: {
        default = pkgs.callPackage ./nixos/shell.nix { };
      });

      checks = forEachSystem (
        pkgs:
        let
          inherit (pkgs.stdenv.hostPlatform) system;
        in
        import ./nixos/checks.nix {
          inherit pkgs;
          inherit (self) evaluated nixosModules;
          hosts = lib.genAttrs roles (role: self.nixosConfigurations.${hostName role system});
          examples = lib.mapAttrs (
            _: example: example.nixosConfigurations.${hostName "backend" system}
          ) examples;
          optionsDoc = self.packages.${system}.option-docs;
        }
      );

      formatter = forEachSystem (pkgs: pkgs.nixfmt-tree);
    };
}
