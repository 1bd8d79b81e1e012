# The two programs as packages: `drawbridge` for the operator's machine, `drawbridge-host` for the instances.
final: _prev: {
  drawbridge = final.callPackage ./package.nix {
    feature = "operator";
    program = "drawbridge";
  };

  drawbridge-host = final.callPackage ./package.nix {
    feature = "host";
    program = "drawbridge-host";
  };
}
