# `nix flake check`. `hosts` are the NixOS systems of one architecture by role, `examples` those of nixos/examples by name,
# `evaluated` what nixos/evaluated/ should hold, `nixosModules` and `optionsDoc` as in the flake.
{
  evaluated,
  examples,
  hosts,
  nixosModules,
  optionsDoc,
  pkgs,
}:
let
  inherit (pkgs)
    drawbridge
    drawbridge-host
    e2fsprogs
    git
    lib
    nixfmt
    openssh
    postgresql_17
    runCommand
    rustfmt
    shellcheck
    util-linux
    ;
  inherit (lib) fileset;
  manifest = lib.importTOML ../Cargo.toml;
  sources = fileset.toSource {
    root = ../.;
    fileset = fileset.fileFilter (file: file.hasExt "nix" || file.hasExt "rs") ../.;
  };

  # The whole configuration is evaluated, its assertions included, but only NixOS's own build-time checks of it
  # (sshd -G, postgres -C, ...) are built: a system closure per host would be too dear here.
  evaluation =
    name: host:
    runCommand name {
      inherit (host.config.system) checks;
      toplevel = builtins.unsafeDiscardStringContext host.config.system.build.toplevel.drvPath;
    } ''echo "$toplevel" > $out'';
in
lib.mapAttrs evaluation (
  lib.mapAttrs' (role: lib.nameValuePair "host-${role}") hosts
  // lib.mapAttrs' (name: lib.nameValuePair "example-${name}") examples
)
// {
  inherit drawbridge drawbridge-host;

  # The three hosts and all that is around them, as virtual machines. Needs KVM.
  topology = import ./tests/topology.nix {
    inherit lib pkgs;
    drawbridge = nixosModules;
  };

  # Of the Rust tests those that need no Postgres, sshd or network namespace of their own; `scripts/test` runs the others.
  unit-tests = drawbridge.overrideAttrs (package: {
    pname = "drawbridge-unit-tests";
    # Some compare the code with what is written elsewhere.
    src = fileset.toSource {
      root = ../.;
      fileset = fileset.unions [
        (fileset.fromSource package.src)
        ../README.md
        ../flake.lock
        ../nixos
        ../terraform
      ];
    };
    doCheck = true;
    # What they run: ssh-keygen, mkfs and blkid on files, `postgres -C`.
    nativeCheckInputs = [
      e2fsprogs
      git
      openssh
      postgresql_17
      util-linux
    ];
    cargoCheckType = "debug";
    # Both programs' modules
    cargoCheckNoDefaultFeatures = false;
    cargoTestFlags = [ "--lib" ];
    dontCargoBuild = true;
    dontCargoInstall = true;
    installPhase = "touch $out";
  });

  # An option without a description, or an example that does not render, ends this one.
  option-docs = optionsDoc;

  # The rehearsal boots with nixos/evaluated/. What NixOS itself defines there may lag behind nixpkgs: scripts/evaluate.
  evaluated =
    let
      ours =
        role:
        lib.filterAttrs (
          unit: _: lib.hasPrefix "drawbridge-" unit || unit == "var-lib-postgresql.mount"
        ) evaluated.${role}.units;
      fresh = lib.concatMapAttrs (
        role: _: lib.mapAttrs' (unit: lib.nameValuePair "${role}/units/${unit}") (ours role)
      ) hosts;
    in
    runCommand "evaluated"
      {
        committed = fileset.toSource {
          root = ./evaluated;
          fileset = ./evaluated;
        };
        fresh = pkgs.linkFarm "evaluated-units" (lib.mapAttrs (_: pkgs.writeText "unit") fresh);
      }
      ''
        cd $fresh
        for unit in */units/*; do
          diff --unified "$committed/$unit" "$unit" || { echo "run scripts/evaluate" >&2; exit 1; }
        done
        touch $out
      '';

  formatting =
    runCommand "formatting"
      {
        nativeBuildInputs = [
          nixfmt
          rustfmt
        ];
      }
      ''
        cd ${sources}
        find . -name '*.nix' -exec nixfmt --check {} +
        find . -name '*.rs' -exec rustfmt --check --edition ${manifest.package.edition} {} +
        touch $out
      '';

  # The same files as in scripts/test.
  scripts =
    runCommand "scripts"
      {
        nativeBuildInputs = [ shellcheck ];
        source = fileset.toSource {
          root = ../.;
          fileset = fileset.unions [
            ../.ci
            ../scripts
            (fileset.fileFilter (file: file.hasExt "sh") ../src/rehearsal)
          ];
        };
      }
      ''
        cd $source
        {
          grep --recursive --files-with-matches --extended-regexp '^#!.*\b(ba)?sh\b' .ci scripts
          find . -name '*.sh'
        } | xargs shellcheck --external-sources
        touch $out
      '';
}
