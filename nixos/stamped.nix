# A built package with the commit beside its program, which says it (`--version`, `/version`). Apart from the build: a
# commit that changes no source file would otherwise compile everything anew.
{
  runCommand,
  package,
  # null: nobody knows, and then the program says so.
  commit,
}:
if commit == null then
  package
else
  runCommand package.name
    {
      inherit (package) pname version meta;
      inherit commit;
    }
    ''
      # Copied, not linked: the program looks beside where it really is.
      cp -r ${package} $out
      chmod -R u+w $out
      mkdir -p $out/share/drawbridge
      printf '%s\n' "$commit" >$out/share/drawbridge/commit
    ''
