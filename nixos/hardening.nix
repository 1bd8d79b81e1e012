# What the API's unit is denied. A program that needs one of these back sets it with lib.mkForce.
{
  systemd.services.drawbridge-api.serviceConfig = import ./denied.nix // {
    # The instance's role can read the database password from SSM: nobody gets its keys through the program.
    IPAddressDeny = [
      "169.254.169.254/32"
      "fd00:ec2::254/128"
    ];
    PrivateDevices = true;
    PrivateUsers = true;
    RemoveIPC = true;
  };
}
