# `nix flake check`: what can be told without booting anything.
# `hosts` are the NixOS systems of one architecture by role.
{ hosts, pkgs }:
let
  inherit (pkgs)
    drawbridge
    drawbridge-host
    lib
    nixfmt
    runCommand
    rustfmt
    shellcheck
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
    role: host:
    runCommand "host-${role}" {
      inherit (host.config.system) checks;
      toplevel = builtins.unsafeDiscardStringContext host.config.system.build.toplevel.drvPath;
    } ''echo "$toplevel" > $out'';
in
lib.mapAttrs' (role: host: lib.nameValuePair "host-${role}" (evaluation role host)) hosts
// {
  inherit drawbridge drawbridge-host;

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

  scripts =
    runCommand "scripts"
      {
        nativeBuildInputs = [ shellcheck ];
        source = fileset.toSource {
          root = ../.;
          fileset = fileset.maybeMissing ../scripts;
        };
      }
      ''
        cd $source
        grep --recursive --files-with-matches --extended-regexp '^#!.*\b(ba)?sh\b' scripts | xargs shellcheck
        touch $out
      '';
}
