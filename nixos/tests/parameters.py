"""SSM as Terraform and an operator use it in the topology test.

    parameters.py create               every parameter of the deployment, "pending", as terraform/parameters.tf makes them
    parameters.py get NAME             one value, decrypted
    parameters.py known-hosts FILE     the host keys that the hosts published, for ssh
"""

import sys
from pathlib import Path

import boto3

NAME = "drawbridge"
ADDRESSES = {"bastion": "10.20.1.10", "backend": "10.20.2.10", "database": "10.20.3.10"}
PUBLISHED = [f"hosts/{role}/{what}" for role in ADDRESSES for what in ("bootstrap", "ssh-host-key")]

ssm = boto3.client("ssm", region_name="ap-south-1", aws_access_key_id="test", aws_secret_access_key="test")


def get(name: str) -> str:
    return ssm.get_parameter(Name=f"/{NAME}/{name}", WithDecryption=True)["Parameter"]["Value"]


match sys.argv[1:]:
    case ["create"]:
        for parameter in [*PUBLISHED, "database/certificate"]:
            ssm.put_parameter(Name=f"/{NAME}/{parameter}", Value="pending", Type="String", Overwrite=True)
        ssm.put_parameter(Name=f"/{NAME}/database/login", Value="pending", Type="SecureString", Overwrite=True)
    case ["get", name]:
        print(get(name))
    case ["known-hosts", file]:
        lines = [f"{address} {get(f'hosts/{role}/ssh-host-key')}\n" for role, address in ADDRESSES.items()]
        Path(file).write_text("".join(lines))
    case _:
        sys.exit(__doc__)
