# The two programs as packages: `drawbridge` for the operator's machine, `drawbridge-host` for the instances. `commit` is
# what the latter says it was built from.
{ commit }:
final: _prev: {
  drawbridge = final.callPackage ./package.nix {
    feature = "operator";
    program = "drawbridge";
  };

  drawbridge-host = final.callPackage ./stamped.nix {
    inherit commit;
    package = final.callPackage ./package.nix {
      feature = "host";
      program = "drawbridge-host";
    };
  };
}
