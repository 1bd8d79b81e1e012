# The options that these modules add, as a page in Markdown. Where an option is declared is named by its file here.
{
  options,
  pkgs,
  self,
}:
let
  inherit (pkgs) lib;
in
(pkgs.nixosOptionsDoc {
  options = { inherit (options) drawbridge; };
  transformOptions =
    option:
    option
    // {
      declarations = map (file: lib.removePrefix "${self}/" (toString file)) option.declarations;
    };
  warningsAreErrors = true;
}).optionsCommonMark
