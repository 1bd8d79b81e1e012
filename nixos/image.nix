# The AMI as `config.system.build.images.ami`: a raw disk that the EBS direct APIs take as it is.
#
# nixpkgs' own `amazon` variant calls the same builder, but always copies a whole nixpkgs into the image as a channel
# (some 400 MB of a disk that is then snapshotted in three AMIs), and its default format is VHD, which only the slow
# VM import takes. image.repart would need no virtual machine to build, but boots by UEFI only.
# The builder installs the boot loader in a virtual machine: the building machine needs the `kvm` system feature.
{ lib, ... }:
{
  image.modules.ami =
    {
      config,
      modulesPath,
      pkgs,
      ...
    }:
    let
      inherit (pkgs.stdenv.hostPlatform) system;
      info = {
        inherit system;
        inherit (config.drawbridge) role;
        boot_mode = if config.ec2.efi then "uefi" else "legacy-bios";
        file = config.image.fileName;
        label = config.system.nixos.label;
      };
    in
    {
      imports = [ "${modulesPath}/image/file-options.nix" ];

      assertions = [
        {
          assertion = config.fileSystems."/".autoResize && config.boot.growPartition;
          message = "The root disk must grow to the size of its EBS volume at boot: keep boot.growPartition and fileSystems.\"/\".autoResize on, or a larger root_volume_gib has no effect.";
        }
      ];

      image.baseName = "drawbridge-${config.drawbridge.role}-${system}";
      image.extension = "img";

      system.build.image = import "${modulesPath}/../lib/make-disk-image.nix" {
        inherit config lib pkgs;
        inherit (config.image) baseName;
        name = "ami-${config.drawbridge.role}";
        format = "raw";
        partitionTableType = if config.ec2.efi then "efi" else "legacy+gpt";
        copyChannel = false;
        # Room for the first boot; growPartition takes the rest of the EBS volume.
        additionalSpace = "512M";
        # For whoever registers the AMI: the same keys as nixpkgs' own image has, with `file` relative to $out.
        postVM = ''
          mkdir -p $out/nix-support
          ${lib.getExe pkgs.jq} --argjson bytes "$(stat --format=%s "$diskImage")" '.logical_bytes = $bytes' \
            ${pkgs.writeText "image-info.json" (builtins.toJSON info)} > $out/nix-support/image-info.json
        '';
      };
    };
}
