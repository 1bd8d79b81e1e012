# Reads a list of flows: `problems` (sentences, empty if all is well), `portsTo role`, `portsFrom role`,
# `portsBetween from to` and `sourcesOf role port`.
{ lib }:
flows:
let
  hosts = [
    "bastion"
    "backend"
    "database"
  ];
  sources = hosts ++ [
    "admins"
    "internet"
    "load_balancer"
  ];
  targets = hosts ++ [ "load_balancer" ];
  needs = [ "certificate" ];

  shown = flow: "${flow.from} -> ${flow.to}:${toString flow.port}";
  wrongEnd =
    flow: end: known:
    lib.optional (!lib.elem flow.${end} known)
      "terraform/flows.json, ${shown flow}: `${end}` is no known host; write one of ${lib.concatStringsSep ", " known}.";
  isPort = port: port >= 1 && port <= 65535;
  wrongPort =
    flow:
    lib.optional (
      !isPort flow.port
    ) "terraform/flows.json, ${shown flow}: `port` must be a TCP port from 1 to 65535.";
  wrongNeed =
    flow:
    lib.optional (flow.needs or null != null && !lib.elem flow.needs needs)
      "terraform/flows.json, ${shown flow}: `needs` is `${flow.needs}`; leave it out, or write one of ${lib.concatStringsSep ", " needs}.";
  twice = lib.filter (name: lib.count (flow: shown flow == name) flows > 1) (
    lib.unique (map shown flows)
  );

  # A flow that needs something counts: whether it is there is known when the deployment is made, not the image, and the
  # security groups then hold the flow back.
  # Without the wrong ones: they would fail in the firewall's own types, before `problems` has had its say.
  ports =
    picked: lib.sort lib.lessThan (lib.unique (lib.filter isPort (map (flow: flow.port) picked)));
in
{
  problems =
    lib.concatMap (
      flow: wrongEnd flow "from" sources ++ wrongEnd flow "to" targets ++ wrongPort flow ++ wrongNeed flow
    ) flows
    ++ map (name: "terraform/flows.json lists ${name} more than once; keep one of them.") twice;

  portsTo = role: ports (lib.filter (flow: flow.to == role) flows);
  portsFrom = role: ports (lib.filter (flow: flow.from == role) flows);
  sourcesOf =
    role: port: map (flow: flow.from) (lib.filter (flow: flow.to == role && flow.port == port) flows);
  portsBetween = from: to: ports (lib.filter (flow: flow.from == from && flow.to == to) flows);
}
