# What the modules come to, as a tree of texts: `evaluated` in the flake, written to nixos/evaluated/ by scripts/evaluate.
# The rehearsal's systemd boots with exactly these, so that images and rehearsal cannot drift apart.
#
#   <role>/units/<unit>           as NixOS writes them to /etc/systemd/system
#   <role>/scripts/<name>         what a unit names as /nix/store/<name>, or /nix/store/<name>/bin/<its program>
#   <role>/files/<absolute path>  configuration files; those that units or scripts name are below files/nix/store
#   <role>/wants                  one line a link: `multi-user.target sshd.service`
#   <role>/store                  every store path named in these, for whoever puts other programs in their place
#   nixpkgs                       which nixpkgs this was evaluated with: release and hash
#
# Store paths lose their hash and version. Nothing is built: a text that is a build product is written here in the format
# in which NixOS builds it.
{
  lib,
  hosts,
  nixpkgs,
}:
let
  # /nix/store/<hash>-openssh-10.3p1/bin -> /nix/store/openssh/bin
  storePath = "/nix/store/[a-z0-9]{32}-([-+._?=0-9a-zA-Z]+)";
  pname = name: (builtins.parseDrvName name).name;
  plain =
    text:
    lib.concatMapStrings (
      part: if lib.isList part then "/nix/store/${pname (lib.head part)}" else part
    ) (builtins.split storePath (builtins.unsafeDiscardStringContext text));
  storePathsIn =
    texts:
    lib.unique (
      lib.sort lib.lessThan (
        lib.concatMap (
          text:
          lib.concatMap (part: lib.optionals (lib.isList part) part) (
            builtins.split "(/nix/store/[-+._?=0-9a-zA-Z]+)" text
          )
        ) texts
      )
    );

  # a/b/c and a text as { a.b.c = text; }, as `nix eval --write-to` makes folders
  file =
    path: text: lib.setAttrByPath (lib.filter (part: part != "") (lib.splitString "/" path)) text;
  tree = files: lib.foldl' lib.recursiveUpdate { } (lib.mapAttrsToList file files);

  # nixos/modules/services/networking/ssh/sshd.nix, `settingsFormat` and `sshconf`
  sshdConfig =
    openssh:
    let
      commaSeparated = [
        "Ciphers"
        "KexAlgorithms"
        "Macs"
      ];
      joined =
        name: value:
        if lib.isList value then
          lib.concatStringsSep (if lib.elem name commaSeparated then "," else " ") value
        else
          value;
      word = value: if lib.isBool value then lib.boolToYesNo value else toString value;
      line = lib.generators.mkKeyValueDefault { mkValueString = word; } " ";
      settings = lib.filterAttrs (_: value: value != null) openssh.settings;
    in
    lib.generators.toKeyValue { mkKeyValue = line; } (lib.mapAttrs joined settings)
    + openssh.extraConfig
    + "\n";

  # nixos/modules/services/databases/postgresql.nix, `configFile`
  postgresqlConf =
    settings:
    let
      word =
        value:
        if lib.isBool value then
          lib.boolToYesNo value
        else if lib.isString value then
          "'${lib.replaceStrings [ "'" ] [ "''" ] value}'"
        else
          toString value;
    in
    lib.concatStringsSep "\n" (
      lib.mapAttrsToList (name: value: "${name} = ${word value}") (
        lib.filterAttrs (_: value: value != null) settings
      )
    );

  # nixos/modules/system/boot/systemd/tmpfiles.nix, `settingsEntryToRule`; our rules have no argument
  tmpfiles =
    paths:
    lib.concatStrings (
      lib.concatLists (
        lib.mapAttrsToList (
          path:
          lib.mapAttrsToList (
            _: rule: "'${rule.type}' '${path}' '${rule.mode}' '${rule.user}' '${rule.group}' '${rule.age}'\n"
          )
        ) paths
      )
    );

  # nixos/lib/systemd-lib.nix, `makeJobScript`
  jobScript = text: "#!/nix/store/bash/bin/bash\nset -e\n\n${text}\n";

  evaluate =
    role: host:
    let
      inherit (host) config;
      inherit (config) systemd;
      units = lib.filter (unit: systemd.units ? ${unit}) [
        "drawbridge-api.service"
        "drawbridge-api.socket"
        "drawbridge-bootstrap.service"
        "nftables.service"
        "postgresql-setup.service"
        "postgresql.service"
        "postgresql.target"
        "sshd-keygen.service"
        "sshd.service"
        "var-lib-postgresql.mount"
      ];

      # NixOS makes a script of each of these texts. Those that are derivations already hold their text.
      jobs =
        lib.concatMapAttrs
          (
            service: kinds:
            lib.concatMapAttrs (
              option: suffix:
              let
                text = systemd.services.${service}.${option};
              in
              lib.optionalAttrs (text != "") { "unit-script-${service}-${suffix}" = jobScript text; }
            ) kinds
          )
          (
            lib.genAttrs (map (lib.removeSuffix ".service") (lib.filter (lib.hasSuffix ".service") units)) (_: {
              script = "start";
              preStart = "pre-start";
              postStart = "post-start";
              preStop = "pre-stop";
              postStop = "post-stop";
              reload = "reload";
            })
          );
      inherit (systemd.services.nftables) serviceConfig;
      named = lib.listToAttrs (
        map (script: lib.nameValuePair script.name script.text) (
          lib.filter lib.isDerivation (
            lib.flatten (
              with serviceConfig;
              [
                ExecStart
                ExecStartPost
                ExecReload
                ExecStop
              ]
            )
          )
        )
      );

      # nixos/modules/services/networking/nftables.nix, `deletionsScript`: the one script that no unit names
      deletions =
        let
          inherit (config.networking) nftables;
          tables = lib.filter (table: table.enable) (lib.attrValues nftables.tables);
          delete = table: "table ${table.family} ${table.name}\ndelete table ${table.family} ${table.name}\n";
        in
        lib.concatMapStrings delete tables
        + lib.optionalString nftables.flushRuleset "flush ruleset\n"
        + nftables.extraDeletions;

      etc =
        name:
        lib.optionalAttrs (config.environment.etc ? ${name}) {
          "etc/${name}" = config.environment.etc.${name}.text;
        };
      files = {
        "etc/ssh/sshd_config" = sshdConfig config.services.openssh;
        "etc/sysctl.d/60-nixos.conf" = config.environment.etc."sysctl.d/60-nixos.conf".text;
        "etc/systemd/journald.conf" = config.environment.etc."systemd/journald.conf".text;
      }
      // etc "drawbridge/system.json"
      // etc "ssh/penalties.conf"
      // lib.optionalAttrs config.security.sudo.enable {
        "etc/sudoers" = config.security.sudo.configFile;
      }
      // lib.optionalAttrs (systemd.tmpfiles.settings ? drawbridge) {
        "etc/tmpfiles.d/drawbridge.conf" = tmpfiles systemd.tmpfiles.settings.drawbridge;
      }
      // lib.optionalAttrs config.services.postgresql.enable {
        "nix/store/postgresql.conf/postgresql.conf" = postgresqlConf config.services.postgresql.settings;
      };

      texts = {
        units = lib.genAttrs units (unit: plain systemd.units.${unit}.text);
        scripts = lib.mapAttrs (_: plain) (
          jobs
          // named
          // {
            nftables-deletions = deletions;
            tunnel-shell = "#!/nix/store/bash/bin/bash\n${(lib.importJSON ./settings/sshd.json).tunnel.ForceCommand}\n";
          }
        );
      };
      # Each ends with one line feed.
      written = lib.mapAttrs (_: text: lib.removeSuffix "\n" (plain text) + "\n") files;
    in
    texts
    // {
      files = tree written;
      wants = lib.concatMapStrings (
        unit: lib.concatMapStrings (target: "${target} ${unit}\n") systemd.units.${unit}.wantedBy
      ) units;
      store = lib.concatMapStrings (path: path + "\n") (
        storePathsIn (lib.attrValues texts.units ++ lib.attrValues texts.scripts ++ lib.attrValues written)
      );
    };
in
lib.mapAttrs evaluate hosts
// {
  nixpkgs = "${lib.trivial.release} ${nixpkgs.narHash}\n";
}
