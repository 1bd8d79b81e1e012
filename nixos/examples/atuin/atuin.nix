{ lib, pkgs, ... }:
let
  # The address, user and certificate of the database are in the environment under libpq's names, which Atuin's database
  # library reads as well. The password is a file that only this unit can read.
  start = pkgs.writeShellApplication {
    name = "start-atuin";
    text = ''
      PGPASSWORD=$(<"$CREDENTIALS_DIRECTORY/database-password")
      export PGPASSWORD
      exec ${lib.getExe' pkgs.atuin "atuin-server"} start
    '';
  };
in
{
  drawbridge.backend = {
    package = start;
    command = [ (lib.getExe start) ];
    healthPath = "/healthz";
    # It binds its port by itself.
    socketActivation = false;
    memoryMax = "60%";
  };

  systemd.services.drawbridge-api = {
    environment = {
      ATUIN_HOST = "0.0.0.0";
      ATUIN_PORT = "8000";
      # All but the kind of database comes from the environment.
      ATUIN_DB_URI = "postgres:///drawbridge";
      ATUIN_OPEN_REGISTRATION = "true";
      # It wants a folder to look for a file in.
      ATUIN_CONFIG_DIR = "/run/atuin";
    };
    serviceConfig.RuntimeDirectory = "atuin";
  };
}
