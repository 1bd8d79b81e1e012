# sshd as settings/sshd.json says, and what each role forwards to out of the flows. The rehearsal gives the same to Debian's
# sshd (src/rehearsal/sshd.rs), so both must know every keyword.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (config.drawbridge) role;
  inherit (lib.importJSON ./settings/sshd.json) common tunnel;
  flows = import ./flows.nix { inherit lib; } config.drawbridge.flows;

  # The bastion forwards to where flows begin at it. The private hosts forward to what they serve, on themselves.
  targets =
    if role == "bastion" then
      map (port: "*:${toString port}") (flows.portsFrom role)
    else
      lib.concatMap (port: [
        "localhost:${toString port}"
        "127.0.0.1:${toString port}"
      ]) (lib.remove common.Port (flows.portsTo role));

  # Who may reach sshd here: people the bastion, and only the bastion the others.
  from = if role == "bastion" then "admins" else "bastion";
  sources = flows.sourcesOf role common.Port;

  word = value: if lib.isBool value then lib.boolToYesNo value else toString value;
  penalties = "ssh/penalties.conf";
in
{
  assertions = [
    {
      assertion = sources == [ from ];
      message =
        "terraform/flows.json must let ${from}, and nobody else, to port ${toString common.Port} of the ${role}, where sshd is: "
        + (
          if sources == [ ] then
            "add that flow, or nobody can sign in."
          else
            "it names ${lib.concatStringsSep ", " sources}."
        );
    }
  ];

  services.openssh = {
    enable = true;

    # These three have options of their own; a second definition among the settings would contradict them.
    ports = [ common.Port ];
    hostKeys = [
      {
        type = "ed25519";
        path = common.HostKey;
      }
    ];
    authorizedKeysFiles = lib.mkForce [ common.AuthorizedKeysFile ];

    settings =
      removeAttrs common [
        "AuthorizedKeysFile"
        "HostKey"
        "Port"
        "Subsystem"
      ]
      // {
        # amazon-image.nix lets root in with the launch key.
        PermitRootLogin = lib.mkForce common.PermitRootLogin;
        # Without the keyword sshd would forward to anywhere.
        PermitOpen = if targets == [ ] then "none" else lib.concatStringsSep " " targets;
      };

    # Last: what follows a Match line belongs to it.
    extraConfig = lib.mkAfter ''
      Include /etc/${penalties}
      Match User tunnel
      ${lib.concatStrings (lib.mapAttrsToList (name: value: "  ${name} ${word value}\n") tunnel)}'';

    # flows.json opens ports (firewall.nix), not the service.
    openFirewall = false;
    # For scp and sftp as `admin`, by sshd itself; `tunnel` gets its ForceCommand in its place. The module writes the line
    # out of these two, so it has to be the one of the settings.
    allowSFTP = true;
    sftpServerExecutable = lib.removePrefix "sftp " common.Subsystem;
  };

  # In a file of its own, because sshd before 9.8, such as Debian 12's, stops at the keyword. To a private host everybody comes
  # from the bastion's address: one person's wrong key would shut all others out. To the bastion an office comes from one
  # address: with sshd's own numbers (authfail:5s, min:15s) three wrong keys would shut it out, with these fifteen at once.
  environment.etc.${penalties}.text =
    if role == "bastion" then "PerSourcePenalties authfail:2s min:30s\n" else "PerSourcePenalties no\n";

  # Whoever holds a key of tunnel_ssh_keys or admin_ssh_keys. Two locks, either of which is enough: sshd runs ForceCommand
  # whatever is asked for, and it runs it by this shell, which does the same whatever it is given.
  users.users.tunnel = {
    isSystemUser = true;
    group = "tunnel";
    description = "Forwards connections, nothing else";
    shell = lib.getExe (pkgs.writeShellScriptBin "tunnel-shell" tunnel.ForceCommand);
  };
  users.groups.tunnel = { };

  # systemd would also serve sshd on vsock and on a local socket, past the flows.
  systemd.generators.systemd-ssh-generator = "/dev/null";
}
