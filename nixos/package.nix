# One program of the Cargo package: `program` is the executable, `feature` the Cargo feature it needs.
{
  lib,
  installShellFiles,
  rustPlatform,
  stdenv,
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

  env.DRAWBRIDGE_BUILT_BY_NIX = "1";

  buildNoDefaultFeatures = true;
  buildFeatures = [ feature ];
  cargoBuildFlags = [
    "--bin"
    program
  ];

  # The operator's program writes its own completions and manual pages, where the machine that builds can run it.
  nativeBuildInputs = lib.optional (feature == "operator") installShellFiles;
  postInstall =
    lib.optionalString (feature == "operator" && stdenv.buildPlatform.canExecute stdenv.hostPlatform)
      ''
        installShellCompletion --cmd drawbridge \
          --bash <($out/bin/drawbridge completions bash) \
          --fish <($out/bin/drawbridge completions fish) \
          --zsh <($out/bin/drawbridge completions zsh)
        $out/bin/drawbridge man --output man1
        installManPage man1/*.1
      '';

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
