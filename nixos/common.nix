# What all three hosts are: one login, no password, nothing that changes the machine from outside.
{
  config,
  lib,
  modulesPath,
  ...
}:
let
  cfg = config.drawbridge;
in
{
  imports = [
    "${modulesPath}/profiles/minimal.nix"
    "${modulesPath}/virtualisation/amazon-image.nix"
  ];

  options.drawbridge = {
    role = lib.mkOption {
      type = lib.types.enum [
        "bastion"
        "backend"
        "database"
      ];
      example = "backend";
      description = "What this host is in the topology. Set by the role's module; user data that names another role stops the bootstrap.";
    };

    package = lib.mkOption {
      type = lib.types.package;
      example = lib.literalExpression "drawbridge.packages.x86_64-linux.drawbridge-host";
      description = "The package with `bin/drawbridge-host`, which bootstraps the host and, on the backend, is the API.";
    };
  };

  config = {
    system.stateVersion = lib.mkDefault "26.05";
    networking.hostName = cfg.role;
    time.timeZone = lib.mkDefault "UTC";

    users.mutableUsers = false;
    # Keys arrive with the user data at boot, in a file NixOS does not know: it would take the hosts for locked.
    users.allowNoPasswordLogin = true;
    users.users.admin = {
      isNormalUser = true;
      description = "Whoever holds one of the keys in admin_ssh_keys";
      extraGroups = [ "systemd-journal" ];
    };
    # Root only by the rule in operators.nix; on the bastion by nothing.
    security.sudo.enable = lib.mkDefault false;

    # The AMI is the configuration. User data is data: it is neither run as a script nor rebuilt from,
    # and what these services fetch (launch key for root, host key from user data) has no place here.
    nix.enable = false;
    virtualisation.amazon-init.enable = false;
    services.amazon-ssm-agent.enable = lib.mkForce false;
    systemd.services.fetch-ec2-metadata.enable = false;
    systemd.services.apply-ec2-data.enable = false;

    assertions =
      let
        holders = lib.filter (
          user:
          lib.any (secret: secret != null && !lib.hasPrefix "!" secret) [
            user.hashedPassword
            user.hashedPasswordFile
            user.initialHashedPassword
            user.initialPassword
            user.password
          ]
        ) (lib.attrValues config.users.users);
      in
      [
        {
          assertion = holders == [ ];
          message = "An appliance has no passwords, but these users have one: ${
            lib.concatMapStringsSep ", " (user: user.name) holders
          }. Remove it; people sign in with a key of the Terraform variable admin_ssh_keys.";
        }
        {
          assertion = !config.services.amazon-ssm-agent.enable && !config.virtualisation.amazon-init.enable;
          message = "services.amazon-ssm-agent and virtualisation.amazon-init let others than the image say what runs here: leave both off, and put what you need into `modules` of mkAppliance.";
        }
      ];

    # For people over ssh, and for `drawbridge nat close`, which asks each host whether it still gets out.
    environment.systemPackages = [ cfg.package ];

    # Without the NAT gateway no public time server answers; Amazon's link-local one, named by amazon-image.nix, does.
    # timesyncd asks NixOS's timeServers only as a fallback, after whatever DHCP names.
    services.timesyncd.servers = config.networking.timeServers;
    services.timesyncd.fallbackServers = [ ];

    # Root disks are small; a noisy month must not fill one.
    services.journald.extraConfig = ''
      Storage=persistent
      SystemMaxUse=256M
      RuntimeMaxUse=32M
      MaxRetentionSec=1month
    '';
  };
}
