# On the private hosts an operator may act as root: whoever is here came through the bastion with a listed key.
{
  security.sudo = {
    enable = true;
    execWheelOnly = true;
    wheelNeedsPassword = false;
  };

  users.users.admin.extraGroups = [ "wheel" ];
}
