# What a system says of itself to `drawbridge deploy`, before it is switched to.
{ config, ... }:
{
  environment.etc."drawbridge/system.json".text = builtins.toJSON {
    inherit (config.drawbridge) role;
    # Of the backend alone.
    migrate = config.drawbridge.backend.migrate or null;
  };
}
