# sshd as settings/sshd.json says; what the bastion forwards to, bastion.nix takes from the flows. The rehearsal gives the
# same to Debian's sshd, so both must know every keyword.
{ config, lib, ... }:
let
  file = lib.importJSON ./settings/sshd.json;
  settings = file.common // lib.optionalAttrs (config.drawbridge.role != "bastion") file.private;
in
{
  services.openssh = {
    enable = true;

    # These three have options of their own; a second definition among the settings would contradict them.
    ports = [ settings.Port ];
    hostKeys = [
      {
        type = "ed25519";
        path = settings.HostKey;
      }
    ];
    authorizedKeysFiles = lib.mkForce [ settings.AuthorizedKeysFile ];

    settings =
      removeAttrs settings [
        "AuthorizedKeysFile"
        "HostKey"
        "Port"
      ]
      // {
        # amazon-image.nix lets root in with the launch key.
        PermitRootLogin = lib.mkForce settings.PermitRootLogin;
      };

    # flows.json opens ports (firewall.nix), not the service.
    openFirewall = false;
    # Nobody copies files to or from an appliance; what sftp would be good for goes over `ssh host cat`.
    allowSFTP = false;
  };

  # systemd would also serve sshd on vsock and on a local socket, past the flows.
  systemd.generators.systemd-ssh-generator = "/dev/null";
}
