# The three hosts and a fourth machine that is everything else: the VPC's router, the metadata service, SSM (moto) over TLS,
# the internet and the operator. Security groups are not played; the hosts' own firewalls are what refuses here.
#
# Needs KVM to run. `drawbridge` are the flake's nixosModules.
{
  drawbridge,
  lib,
  pkgs,
}:
let
  region = "ap-south-1";
  aws = "203.0.113.200";
  endpoint = "ssm.${region}.amazonaws.com";
  volume = "vol-0123456789abcdef0";
  keys = import "${pkgs.path}/nixos/tests/ssh-keys.nix" pkgs;

  # One subnet a role, as terraform/network.tf makes them; the router is .1 in each.
  subnets = {
    bastion = 1;
    backend = 2;
    database = 3;
  };
  address = role: "10.20.${toString subnets.${role}}.10";

  certificates =
    pkgs.runCommand "topology-certificates"
      {
        nativeBuildInputs = [ pkgs.minica ];
      }
      ''
        mkdir $out
        cd $out
        minica --ca-cert authority.pem --ca-key authority.key --domains ${endpoint}
      '';

  instances = lib.mapAttrs' (
    role: duty:
    lib.nameValuePair (address role) {
      id = "i-${lib.fixedWidthString 17 "0" (toString subnets.${role})}";
      user_data = {
        inherit region role;
        name = "drawbridge";
        admin_keys = [ keys.snakeOilEd25519PublicKey ];
        tunnel_keys = [ ];
      }
      // duty;
    }
  ) duties;
  duties = {
    bastion = { };
    backend.database_address = address "database";
    database = {
      backend_cidr = "10.20.2.0/24";
      data_volume = volume;
    };
  };

  # `virtualisation.vlans` has a file of its own since 26.11; naming it again does no harm.
  networkOptions =
    { lib, modulesPath, ... }:
    let
      file = "${modulesPath}/virtualisation/guest-networking-options.nix";
    in
    {
      imports = lib.optional (builtins.pathExists file) file;
    };

  # What EC2 would do for an instance.
  host = role: {
    imports = [
      drawbridge.${role}
      networkOptions
    ];

    virtualisation = {
      memorySize = 1024;
      diskSize = 2048;
      # No way out but by the router.
      qemu.networkingOptions = lib.mkForce [ ];
      vlans = [ subnets.${role} ];
    };
    networking = {
      useDHCP = false;
      interfaces.eth1.ipv4.addresses = lib.mkForce [
        {
          address = address role;
          prefixLength = 24;
        }
      ];
      defaultGateway = {
        address = "10.20.${toString subnets.${role}}.1";
        interface = "eth1";
      };
      hosts.${aws} = [ endpoint ];
    };
    security.pki.certificateFiles = [ "${certificates}/authority.pem" ];

    # The test's disk has no partition that could grow.
    boot.growPartition = lib.mkForce false;
    # The test's own way in is another; it would give root an empty password.
    users.users.root.hashedPasswordFile = lib.mkForce null;
  };
in
pkgs.testers.runNixOSTest {
  name = "drawbridge-topology";

  nodes = {
    bastion = host "bastion";
    backend = {
      imports = [ (host "backend") ];
      # Another system to switch to, whose API's unit is another.
      specialisation.next.configuration = {
        environment.etc."next".text = "next";
        systemd.services.drawbridge-api.environment.NEXT = "1";
      };
    };

    database = {
      imports = [ (host "database") ];
      # EBS: a disk that stays when the instance goes, under the name that udev gives it on EC2.
      virtualisation.emptyDiskImages = [ 512 ];
      services.udev.extraRules = ''
        KERNEL=="vdb", SYMLINK+="disk/by-id/nvme-Amazon_Elastic_Block_Store_${
          lib.replaceStrings [ "-" ] [ "" ] volume
        }"
      '';
      systemd.services.drawbridge-bootstrap.serviceConfig.DeviceAllow = [ "block-virtblk rw" ];
    };

    world =
      { pkgs, ... }:
      let
        python = pkgs.python3.withPackages (
          packages: [ packages.moto ] ++ packages.moto.optional-dependencies.server
        );
      in
      {
        imports = [ networkOptions ];
        virtualisation = {
          memorySize = 1536;
          # eth1 to eth3
          vlans = lib.sort lib.lessThan (lib.attrValues subnets);
        };
        boot.kernel.sysctl."net.ipv4.ip_forward" = 1;
        networking = {
          useDHCP = false;
          firewall.enable = false;
          nftables.enable = true;
          hosts.${aws} = [ endpoint ];
          interfaces =
            lib.mapAttrs' (
              _: vlan:
              lib.nameValuePair "eth${toString vlan}" {
                ipv4.addresses = lib.mkForce [
                  {
                    address = "10.20.${toString vlan}.1";
                    prefixLength = 24;
                  }
                ];
              }
            ) subnets
            // {
              lo.ipv4.addresses =
                map
                  (local: {
                    address = local;
                    prefixLength = 32;
                  })
                  [
                    aws
                    "169.254.169.254"
                  ];
            };
        };

        environment.systemPackages = [
          pkgs.jq
          (pkgs.writeShellScriptBin "parameters" ''
            export AWS_CA_BUNDLE=${certificates}/authority.pem
            exec ${lib.getExe python} ${./parameters.py} "$@"
          '')
        ];
        environment.etc."test-key".source = keys.snakeOilEd25519PrivateKey;
        environment.etc."ssh-to-hosts".text = ''
          Host *
            User admin
            IdentityFile /root/key
            UserKnownHostsFile /root/known_hosts
            StrictHostKeyChecking yes
            BatchMode yes
            ConnectTimeout 10
          Host 10.20.2.10 10.20.3.10
            ProxyJump tunnel@10.20.1.10
        '';

        systemd.services = {
          metadata = {
            wantedBy = [ "multi-user.target" ];
            wants = [ "network-online.target" ];
            after = [ "network-online.target" ];
            preStart = "test -e /run/instances.json || cp ${pkgs.writeText "instances.json" (builtins.toJSON instances)} /run/instances.json";
            serviceConfig.ExecStart = "${lib.getExe python} ${./metadata_service.py} /run/instances.json";
          };
          aws = {
            wantedBy = [ "multi-user.target" ];
            wants = [ "network-online.target" ];
            after = [ "network-online.target" ];
            environment.MOTO_PORT = "443";
            serviceConfig.ExecStart = "${python}/bin/moto_server -H ${aws} -p 443 -s -c ${certificates}/${endpoint}/cert.pem -k ${certificates}/${endpoint}/key.pem";
          };
        };
      };
  };

  testScript = lib.readFile ./topology.py;
}
