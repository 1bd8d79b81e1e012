# What NixOS and its EC2 module bring that an appliance has no use for. Each is one thing less to hold in the closure, in
# memory or against an attacker.
{ lib, ... }:
{
  # Nobody can sign in at a console: there is no password. Its lines are the kernel's and bootstrap's (amazon-image.nix
  # sends both to ttyS0, which `aws ec2 get-console-output` shows).
  systemd.services."serial-getty@ttyS0".enable = lib.mkForce false;

  # Nothing is built on a host: a system comes as an image, or whole by `drawbridge deploy`. (nixos-rebuild,
  # nixos-install, ...; the image builder has its own.)
  system.disableInstallerTools = true;

  # One ext4 disk, and on the database another.
  boot.bcache.enable = false;
  services.lvm.enable = false;
  # EBS takes no discards.
  services.fstrim.enable = false;

  # It needs swap to see trouble coming; the units say themselves what happens when memory is short.
  systemd.oomd.enable = false;

  fonts.fontconfig.enable = false;
  programs.bash.completion.enable = false;
  programs.nano.enable = false;
  i18n.defaultLocale = "C.UTF-8";
  i18n.supportedLocales = lib.mkForce [ "C.UTF-8/UTF-8" ];
}
