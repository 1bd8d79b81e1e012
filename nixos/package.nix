# One program of the Cargo package: `program` is the executable, `feature` the Cargo feature it needs.
{
  lib,
  rustPlatform,
  feature,
  program,
}:
let
  inherit (lib) fileset;
  manifest = lib.importTOML ../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = program;
  inherit (manifest.package) version;

  # Only what cargo reads, so that an edit to a document or a module rebuilds nothing.
  src = fileset.toSource {
    root = ../.;
    fileset = fileset.unions [
      ../Cargo.lock
      ../Cargo.toml
      ../benches
      ../migrations
      ../src
      ../terraform/flows.json
      ../tests
      ./settings
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  buildNoDefaultFeatures = true;
  buildFeatures = [ feature ];
  cargoBuildFlags = [
    "--bin"
    program
  ];

  # The tests start Postgres, sshd and network namespaces of their own: `scripts/test` runs them, the build sandbox cannot.
  doCheck = false;

  meta = {
    inherit (manifest.package) description;
    license = with lib.licenses; [
      asl20
      mit
    ];
    mainProgram = program;
    platforms = lib.platforms.linux;
  };
}
