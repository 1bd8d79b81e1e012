"""The pretend AWS of a rehearsal: moto's server, plus what moto leaves out and this deployment needs.

    python3 emulator.py -H 127.0.0.1 -p 5000 [-s -c CERT.pem -k KEY.pem]

The flags are moto.server's own. Needs `pip install 'moto[server]==5.2.1'`; every change below reaches
into that version, so another one is refused. State lives in memory and ends with the process.

Two ends read what is pretended here. Terraform reads back what it made and plans a change for every
difference. The rehearsal builds its network from Terraform's state, so an address must be one that
can be routed: inside its subnet, and nobody else's.
"""

import base64
import functools
import ipaddress
import itertools
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

MOTO = "5.2.1"

# TEST-NET-2 (RFC 5737): nobody's on the internet, so a rehearsal that leaked could not reach anyone.
ELASTIC_IPS = ipaddress.ip_network("198.51.100.0/24")
# The upper half is the rehearsal's, for the load balancer's nodes: src/rehearsal/topology.rs.
FIRST_ELASTIC_IP, LAST_ELASTIC_IP = 10, 127


def moto_is_usable() -> str | None:
    """What to do before the emulator can start, or None."""
    try:
        found = version("moto")
    except PackageNotFoundError:
        found = "none"
    if found != MOTO:
        return f"needs moto {MOTO}, found {found}: pip install 'moto[server]=={MOTO}' for {sys.executable}"
    return None


def wraps(owner: type, name: str) -> Callable[[Callable[..., Any]], None]:
    """Replaces the method `name` of `owner`; the new one gets the original as its first argument."""
    original = getattr(owner, name)

    def replace(wrapper: Callable[..., Any]) -> None:
        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return wrapper(original, *args, **kwargs)

        setattr(owner, name, method)

    return replace


def error_body(service: str, message: str) -> str:
    """An error in the shape the service's protocol wants; in another shape the SDKs say only "unknown"."""
    error = f"<Error><Code>NotImplemented</Code><Message>{message}</Message></Error>"
    if service == "ec2":
        return f"<Response><Errors>{error}</Errors></Response>"
    if service in ("iam", "sts", "elbv2"):
        return f"<ErrorResponse>{error}</ErrorResponse>"
    return json.dumps({"__type": "NotImplemented", "message": message})


def one_at_a_time_and_fail_at_once() -> None:
    """Answers one request after the other, and an action moto lacks with 400.

    moto lets the exception through, which becomes a 500; the AWS provider takes that for an outage
    and tries 25 times, more than ten minutes of "Still creating" in place of one error. And its
    models are not made for threads: Terraform makes ten things at once, and two interfaces made at
    once could get one address.
    """
    from moto.core.responses import BaseResponse

    # Reentrant, should one action be answered by way of another.
    turn = threading.RLock()

    @wraps(BaseResponse, "call_action")
    def _(call_action: Callable[..., Any], self: Any) -> Any:
        try:
            with turn:
                return call_action(self)
        except Exception as error:  # noqa: BLE001  a bug in moto must not be retried either
            # Its name and the place only: the parameters, and so the error's text, may hold a password.
            action = f"{self.service_name}:{self._get_action()}"
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {place.filename}:{place.lineno}"
            print(f"emulator: cannot do {action}: {where}", file=sys.stderr, flush=True)
            return 400, {}, error_body(self.service_name, f"the AWS emulator cannot do {action}")


def elastic_ips_that_can_be_routed() -> None:
    """Hands out TEST-NET-2 addresses one after the other.

    moto draws them from 127.0.0.0/8, at random and so possibly twice; a loopback address cannot be
    routed between the rehearsal's namespaces. A released one comes back only after all others.
    """
    from moto.ec2.exceptions import EC2ClientError
    from moto.ec2.models.elastic_ip_addresses import ElasticAddressBackend

    everything = [str(ip) for ip in ELASTIC_IPS.hosts()][FIRST_ELASTIC_IP - 1 : LAST_ELASTIC_IP]
    rotation = itertools.cycle(everything)

    @wraps(ElasticAddressBackend, "allocate_address")
    def _(allocate: Callable[..., Any], self: Any, domain: str, address: Any = None, tags: Any = None) -> Any:
        taken = {allocated.public_ip for allocated in self.addresses}
        free = (ip for ip in itertools.islice(rotation, len(everything)) if ip not in taken)
        chosen = address or next(free, None)
        if chosen is None:
            raise EC2ClientError("AddressLimitExceeded", f"all of {ELASTIC_IPS} is allocated")
        return allocate(self, domain, address=chosen, tags=tags)


def private_ips_inside_their_subnet() -> None:
    """Gives every interface an address of its subnet that no other interface has.

    For a NAT gateway moto draws one anywhere in 10.0.0.0/8, for other interfaces without a look at
    what is taken. Instances already come from the subnet's own counter, which begins at the fourth
    host address (the first three are the router's, the resolver's and reserved) and skips addresses
    asked for by number; here everybody does.
    """
    from moto.ec2.models.elastic_network_interfaces import NetworkInterfaceBackend

    @wraps(NetworkInterfaceBackend, "create_network_interface")
    def _(create: Callable[..., Any], self: Any, subnet: Any, private_ip_address: Any, *args: Any, **kwargs: Any) -> Any:
        subnet = self.get_subnet(subnet) if isinstance(subnet, str) else subnet
        wanted = private_ip_address[0] if isinstance(private_ip_address, list) and private_ip_address else private_ip_address
        if not wanted or ipaddress.ip_address(wanted) not in subnet.cidr:
            private_ip_address = subnet.get_available_subnet_ip(instance=None)
        return create(self, subnet, private_ip_address, *args, **kwargs)


def instances_keep_their_groups() -> None:
    """Reports the security groups of an instance that asked for its private address by number.

    The provider then sends groups and address inside network interface 0, and moto forgets the
    groups: the next plan would want them back. Also, an interface made by a launch ends with the
    instance; moto keeps it and its address, so a replaced database could not have its address again.
    """
    from moto.ec2.models.instances import Instance

    @wraps(Instance, "prep_nics")
    def _(prep_nics: Callable[..., Any], self: Any, nic_spec: Any, *args: Any, **kwargs: Any) -> None:
        brought = {nic["NetworkInterfaceId"] for nic in nic_spec if nic.get("NetworkInterfaceId")}
        prep_nics(self, nic_spec, *args, **kwargs)
        if not self.security_groups and 0 in self.nics:
            self.security_groups = list(self.nics[0].group_set)
        for nic in self.nics.values():
            if nic.id not in brought:
                nic.delete_on_termination = True


def rules_keep_their_description() -> None:
    """Reports the description of a rule that refers to a group; moto looks for it at address blocks only."""
    from moto.ec2.models.security_groups import SecurityGroupRule

    SecurityGroupRule.description = property(
        lambda self: self.ip_range.get("Description") or self.source_group.get("Description")
    )


def deleted_nat_gateways_let_go() -> None:
    """Lets a deleted NAT gateway give up its Elastic IP and its interface.

    On AWS a gateway that was deleted behind Terraform's back, as the dead man's switch does, leaves
    an unattached address and a blackhole route. moto keeps the address attached to nothing that
    exists and the route active.
    """
    from moto.ec2.models.nat_gateways import NatGatewayBackend
    from moto.ec2.models.route_tables import Route

    @wraps(NatGatewayBackend, "delete_nat_gateway")
    def _(delete: Callable[..., Any], self: Any, nat_gateway_id: str) -> Any:
        gateway = delete(self, nat_gateway_id)
        for address in self.addresses:
            if address.eni is gateway._eni and address.association_id:
                self.disassociate_address(association_id=address.association_id)
        if gateway._eni.id in self.enis:
            gateway._eni.delete()
        return gateway

    Route.state = property(
        lambda self: "blackhole" if self.nat_gateway and self.nat_gateway.state == "deleted" else "active"
    )


def images_keep_what_was_registered() -> None:
    """Makes an image of the snapshot it is registered from, with all that it is registered with; moto forgets that.

    The architecture decides which instance types fit, and terraform compares the two. As on AWS a name is
    given once, the snapshot has to be there and complete, and cannot be deleted while an image needs it.
    """
    from moto.ec2.exceptions import EC2ClientError, InvalidSnapshotIdError
    from moto.ec2.models.amis import Ami
    from moto.ec2.responses.amis import AmisResponse

    invented = Ami.block_device_mappings
    Ami.block_device_mappings = property(lambda self: getattr(self, "mappings", None) or invented.fget(self))

    @wraps(AmisResponse, "register_image")
    def _(register: Callable[..., Any], self: Any) -> Any:
        backend = self.ec2_backend
        name = self._get_param("Name")
        if any(image.name == name and image.owner_id == backend.account_id for image in backend.amis.values()):
            raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use")
        mappings = self._get_param("BlockDeviceMappings", [])
        sources = [mapping["Ebs"]["SnapshotId"] for mapping in mappings if mapping.get("Ebs", {}).get("SnapshotId")]
        for source in sources:
            if source not in backend.snapshots:
                raise InvalidSnapshotIdError()
            if backend.snapshots[source].status != "completed":
                raise EC2ClientError("IncorrectState", f"The snapshot {source} is not completed")
        known = set(backend.amis)
        answer = register(self)
        for image_id in set(backend.amis) - known:
            image = backend.amis[image_id]
            image.architecture = self._get_param("Architecture")
            image.virtualization_type = self._get_param("VirtualizationType")
            image.boot_mode = self._get_param("BootMode")
            image.ena_support = self._get_bool_param("EnaSupport", False)
            image.imds_support = self._get_param("ImdsSupport")
            image.root_device_name = self._get_param("RootDeviceName") or image.root_device_name
            image.add_tags(self._parse_tag_specification().get("image", {}))
            if sources:
                # The one that moto makes for an image out of nothing.
                del backend.snapshots[image.ebs_snapshot.id]
                image.root_device_type = "ebs"
                image.mappings = mappings
                image.ebs_snapshot = backend.snapshots[sources[0]]
                image.ebs_snapshot.from_ami = image_id
        return answer


def snapshots_are_written_as_on_ebs() -> None:
    """Lets a snapshot be written block by block as EBS does: in 512 KiB, once, and checked against its checksums.

    moto has blocks of 512 bytes, believes every checksum and count, makes a second snapshot for the same
    client token, and never lets one be pending. Here one is pending until it is complete, and EC2 shows
    that a look later than EBS has said so.
    https://docs.aws.amazon.com/ebs/latest/APIReference/API_Operations.html
    """
    import hashlib

    from moto.ebs.models import EBSBackend
    from moto.ebs.responses import EBSResponse
    from moto.ec2.models.elastic_block_store import EBSBackend as VolumeBackend

    block_size = 512 * 1024
    # What was asked for and what came of it, by client token.
    started: dict[str, tuple[str, str]] = {}

    def refused(code: str, message: str, status: int = 400) -> tuple[int, dict[str, str], str]:
        return status, {"x-amzn-ErrorType": code}, json.dumps({"__type": code, "Message": message})

    def checksum(data: bytes) -> str:
        return base64.b64encode(hashlib.sha256(data).digest()).decode()

    def pending(self: Any, snapshot_id: str) -> Any:
        """The snapshot as it can be written, or the error that EBS answers with."""
        snapshot = self.ebs_backend.snapshots.get(snapshot_id)
        if snapshot is None or snapshot_id not in self.ebs_backend.ec2_backend.snapshots:
            return None, refused("ResourceNotFoundException", f"The snapshot '{snapshot_id}' does not exist.", 404)
        if snapshot.status != "pending":
            return None, refused("ValidationException", f"The snapshot '{snapshot_id}' is not pending.")
        return snapshot, None

    @wraps(EBSResponse, "start_snapshot")
    def _(start: Callable[..., Any], self: Any) -> Any:
        asked = json.loads(self.body)
        token = asked.get("ClientToken")
        if token in started:
            before, answer = started[token]
            same = before == json.dumps(asked, sort_keys=True)
            return answer if same else refused("ConflictException", "the client token was used for something else", 503)
        made = json.loads(start(self))
        snapshot = self.ebs_backend.snapshots[made["SnapshotId"]]
        snapshot.block_size = made["BlockSize"] = block_size
        # moto keeps the tags for EC2 only.
        snapshot.tags = made["Tags"] = asked.get("Tags", [])
        volumes = self.ebs_backend.ec2_backend
        volumes.delete_volume(volumes.snapshots[made["SnapshotId"]].volume_id)
        volumes.snapshots[made["SnapshotId"]].status = "pending"
        started[token] = (json.dumps(asked, sort_keys=True), json.dumps(made))
        return json.dumps(made)

    @wraps(EBSResponse, "put_snapshot_block")
    def _(put: Callable[..., Any], self: Any) -> Any:
        path = self.parsed_url.path.split("/")
        snapshot, error = pending(self, path[-3])
        if error:
            return error
        headers = {key.lower(): value for key, value in self.headers.items()}
        if len(self.body) != block_size or int(headers["x-amz-data-length"]) != block_size:
            return refused("ValidationException", f"a block has {block_size} bytes")
        if headers["x-amz-checksum"] != checksum(self.body):
            return refused("ValidationException", "the checksum is not the block's")
        if not 0 <= int(path[-1]) < snapshot.volume_size * 2048:
            return refused("ValidationException", f"block {path[-1]} is not on the volume")
        return put(self)

    @wraps(EBSResponse, "complete_snapshot")
    def _(complete: Callable[..., Any], self: Any) -> Any:
        snapshot_id = self.parsed_url.path.split("/")[-1]
        snapshot, error = pending(self, snapshot_id)
        if error:
            return error
        headers = {key.lower(): value for key, value in self.headers.items()}
        if int(headers["x-amz-changedblockscount"]) != len(snapshot.blocks):
            return refused("ValidationException", f"{len(snapshot.blocks)} blocks have been written")
        in_order = sorted(snapshot.blocks.items(), key=lambda block: int(block[0]))
        linear = checksum(b"".join(base64.b64decode(block.checksum) for _, block in in_order))
        if headers.get("x-amz-checksum", linear) != linear:
            return refused("ValidationException", "the checksum is not that of the blocks' checksums")
        complete(self)
        self.ebs_backend.ec2_backend.snapshots[snapshot_id].looks_left = 1
        return 202, {"status": 202}, json.dumps({"Status": "pending"})

    @wraps(VolumeBackend, "describe_snapshots")
    def _(describe: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        for snapshot in self.snapshots.values():
            left = getattr(snapshot, "looks_left", None)
            if left == 0:
                snapshot.status = "completed"
            if left is not None:
                snapshot.looks_left = left - 1
        return describe(self, *args, **kwargs)

    @wraps(EBSBackend, "list_snapshot_blocks")
    def _(list_blocks: Callable[..., Any], self: Any, snapshot_id: str) -> Any:
        snapshot = list_blocks(self, snapshot_id)
        snapshot.blocks = dict(sorted(snapshot.blocks.items(), key=lambda block: int(block[0])))
        return snapshot


def any_certificate_will_do() -> None:
    """Lets a listener have a certificate that the emulator's ACM does not know.

    A rehearsal applies somebody's own variables, and with them the ARN of their real certificate. No
    key of it is here, and none is needed: a listener is only remembered, never served by the emulator.
    """
    from moto.elbv2 import models

    models.register_certificate = lambda **_: None
    models.ELBv2Backend._certificate_exists = lambda self, certificate_arn: True


def user_data_can_change() -> None:
    """Takes the new user data of an instance that is there, as when an administrator's key is added.

    On that way moto decodes it, and then refuses it because it is not base64 any more.
    """
    from moto.ec2.responses import instances

    parse = instances.parse_user_data
    instances.parse_user_data = lambda data: parse(base64.b64encode(data).decode() if isinstance(data, bytes) else data)


def signatures_are_not_checked() -> None:
    """Believes every caller who they are, once it is asked to enforce IAM policies (POST /moto-api/reset-auth).

    Otherwise it believes everybody anyway. moto calculates some valid signatures differently, those to
    EventBridge Scheduler among them.
    """
    from moto.iam.access_control import IAMRequestBase

    IAMRequestBase.check_signature = lambda self: None


def prepare() -> None:
    """Fills the gaps of a moto that can be used; ends the program where there is none."""
    if problem := moto_is_usable():
        sys.exit(f"emulator: {problem}")
    # Without the managed policies attaching one is NoSuchEntity. Read when moto is first imported.
    os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    one_at_a_time_and_fail_at_once()
    elastic_ips_that_can_be_routed()
    private_ips_inside_their_subnet()
    instances_keep_their_groups()
    rules_keep_their_description()
    deleted_nat_gateways_let_go()
    images_keep_what_was_registered()
    snapshots_are_written_as_on_ebs()
    any_certificate_will_do()
    user_data_can_change()
    signatures_are_not_checked()


def main() -> None:
    """Hands over to moto's server, which returns on SIGTERM or SIGINT."""
    prepare()
    from moto.server import main as serve

    serve(sys.argv[1:])


if __name__ == "__main__":
    main()
