import json

BACKEND = "http://10.20.2.10:8000"
SSH = "ssh -F /etc/ssh-to-hosts"


def wait_until_complete(machine):
    """Bootstrap has ended well, by its own report and systemd's."""
    machine.wait_until_succeeds("systemctl is-active drawbridge-bootstrap.service", timeout=300)
    machine.succeed("drawbridge-host report")


def replace(machine, address, new_id):
    """What a new image does to a host: another instance id and an empty root disk. Its further disks stay."""
    machine.shutdown()
    (machine.state_dir / f"{machine.name}.qcow2").unlink()
    world.succeed(
        f"jq '.[\"{address}\"].id = \"{new_id}\"' /run/instances.json > /run/new.json && mv /run/new.json /run/instances.json"
    )
    machine.start()


def items():
    return [item["name"] for item in json.loads(world.succeed(f"curl --fail --silent {BACKEND}/items"))]


with subtest("AWS answers"):
    world.start()
    world.wait_for_unit("metadata.service")
    world.wait_for_unit("aws.service")
    world.wait_until_succeeds("parameters create", timeout=120)

with subtest("Every host bootstraps"):
    for machine in [bastion, backend, database]:
        machine.start()
    for machine in [bastion, database, backend]:
        wait_until_complete(machine)
    database.succeed("mountpoint /var/lib/postgresql")
    backend.succeed("test ! -e /etc/ec2-metadata")

with subtest("The API keeps what it is given, over TLS, in the database"):
    world.wait_until_succeeds(f"curl --fail --silent {BACKEND}/ready", timeout=120)
    world.fail(f"curl --fail --silent --json '{{\"name\": \"refused\"}}' {BACKEND}/items")
    login = json.dumps({"email": "test@example.org", "password": "nothing is kept here"})
    register = json.dumps({"name": "Test", **json.loads(login)})
    world.succeed(f"curl --fail --silent --json '{register}' {BACKEND}/auth/register")
    token = json.loads(world.succeed(f"curl --fail --silent --json '{login}' {BACKEND}/auth/login"))["token"]
    world.succeed(
        f"curl --fail --silent --header 'Authorization: Bearer {token}' --json '{{\"name\": \"kept\"}}' {BACKEND}/items"
    )
    assert items() == ["kept"], items()
    database.succeed(
        "psql --host /run/postgresql --username postgres -Atc 'select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where client_addr is not null' | grep --line-regexp t"
    )

with subtest("Crashes and updates of the API are not noticed from outside"):
    backend.succeed("systemctl kill --signal=KILL drawbridge-api.service")
    world.succeed(f"curl --fail --silent --max-time 30 {BACKEND}/ready")
    backend.succeed("systemctl restart drawbridge-api.service")
    world.succeed(f"curl --fail --silent --max-time 30 {BACKEND}/ready")

with subtest("ssh goes through the bastion with pinned keys and nowhere else"):
    world.succeed("install -m 600 /etc/test-key /root/key")
    world.succeed("parameters known-hosts /root/known_hosts")
    for address, name in [("10.20.1.10", "bastion"), ("10.20.2.10", "backend"), ("10.20.3.10", "database")]:
        found = world.succeed(f"{SSH} {address} hostname").strip()
        assert found == name, f"{address} is {found}"
    world.succeed(f"{SSH} 10.20.2.10 sudo id --user | grep --line-regexp 0")
    world.fail(f"{SSH} tunnel@10.20.1.10 true")
    world.fail(f"{SSH} -W 10.20.3.10:5432 10.20.1.10 </dev/null")
    world.fail(f"{SSH} -o ProxyJump=none -o PreferredAuthentications=password 10.20.2.10 true")

with subtest("The hosts' firewalls open what flows.json lists"):
    world.fail("timeout 5 bash -c '</dev/tcp/10.20.1.10/8000'")
    world.succeed("timeout 5 bash -c '</dev/tcp/10.20.3.10/5432'")
    world.fail("timeout 5 bash -c '</dev/tcp/10.20.3.10/8000'")

with subtest("Another system is kept once it is confirmed, and taken back if it is not"):
    image = backend.succeed("readlink /run/current-system").strip()
    following = backend.succeed("readlink --canonicalize /run/current-system/specialisation/next").strip()
    # What an image has and a test's disk has not.
    backend.succeed(
        f"cd /nix/var/nix && mkdir -p profiles && cd profiles && ln -sfn {image} system-1-link && ln -sfn system-1-link system"
    )
    # All its paths are in the store, which the machines share with the builder, so nothing is received.
    closure = json.dumps({"toplevel": following, "paths": [{"path": following, "nar_hash": "0" * 64, "nar_size": 1}]})

    def activate(timeout):
        staged = json.loads(backend.succeed(f"echo '{closure}' | drawbridge-host system stage"))
        assert staged["generation"] == 2 and staged["missing"] == [], staged
        backend.succeed(f"drawbridge-host system activate --role backend --confirm-timeout {timeout}")

    def wait_for_phase(phase):
        backend.wait_until_succeeds(
            f"grep --quiet '\"phase\":\"{phase}\"' /var/lib/drawbridge/system/state.json", timeout=300
        )

    activate(5)
    wait_for_phase("rolled-back")
    assert backend.succeed("readlink /run/current-system").strip() == image
    backend.fail("test -e /etc/next")
    activate(300)
    wait_for_phase("waiting")
    backend.succeed("grep next /etc/next && systemctl show --property=Environment drawbridge-api | grep NEXT=1")
    probe = json.loads(backend.succeed("drawbridge-host system probe --role backend"))
    assert probe["healthy"] and probe["current"] == following, probe
    world.succeed(f"curl --fail --silent --max-time 30 {BACKEND}/ready")
    backend.succeed("drawbridge-host system confirm --generation 2")
    assert backend.succeed("readlink --canonicalize /nix/var/nix/profiles/system").strip() == following
    backend.fail("systemctl is-active drawbridge-rollback.timer drawbridge-switch-limit.timer")
    # The image boots in this test whatever the links say: as it was, for what follows.
    backend.succeed("drawbridge-host system stage --generation 1")
    backend.succeed("drawbridge-host system activate --role backend --confirm-timeout 300")
    wait_for_phase("waiting")
    backend.succeed("drawbridge-host system confirm --generation 1")
    assert items() == ["kept"], items()

with subtest("With the way out cut the hosts go on"):
    world.succeed(
        "nft -f - <<'RULES'\n"
        "table inet window {\n"
        "  chain input {\n"
        "    type filter hook input priority filter; policy accept;\n"
        "    ip saddr { 10.20.2.0/24, 10.20.3.0/24 } ip daddr 203.0.113.200 drop\n"
        "  }\n"
        "}\n"
        "RULES"
    )
    for machine in [backend, database]:
        status, said = machine.execute("drawbridge-host egress 203.0.113.200:443")
        assert status == 3, said
    assert items() == ["kept"], items()

with subtest("A reboot needs no way out"):
    for machine in [database, backend]:
        machine.shutdown()
    for machine in [database, backend]:
        machine.start()
    for machine in [database, backend]:
        wait_until_complete(machine)
    world.wait_until_succeeds(f"curl --fail --silent {BACKEND}/ready", timeout=120)
    assert items() == ["kept"], items()

with subtest("A replaced database finds its data on its volume"):
    before = world.succeed("parameters get database/certificate")
    world.succeed("nft delete table inet window")
    replace(database, "10.20.3.10", "i-00000000000000033")
    replace(backend, "10.20.2.10", "i-00000000000000022")
    for machine in [database, backend]:
        wait_until_complete(machine)
    assert world.succeed("parameters get database/certificate") != before, "the certificate is the old host's"
    world.wait_until_succeeds(f"curl --fail --silent {BACKEND}/ready", timeout=120)
    assert items() == ["kept"], items()

with subtest("No unit has failed anywhere"):
    for machine in [bastion, backend, database]:
        failed = machine.succeed("systemctl list-units --failed --plain --no-legend").strip()
        assert failed == "", failed
