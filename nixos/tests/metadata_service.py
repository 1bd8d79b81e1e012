"""The instance metadata service (IMDSv2) of every instance of the topology test, told apart by their addresses.

    metadata_service.py INSTANCES.json

INSTANCES.json: {"10.20.1.10": {"id": "i-…", "user_data": {…}}, …}. It is read anew for every answer, so a test
replaces an instance by writing another id.
"""

import json
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ADDRESS = ("169.254.169.254", 80)
REGION = "ap-south-1"
ROLE = "topology-test"
TOKEN = "x-aws-ec2-metadata-token"
CREDENTIALS = {
    "Code": "Success",
    "Type": "AWS-HMAC",
    "LastUpdated": "2026-01-01T00:00:00Z",
    "AccessKeyId": "ASIATOPOLOGYTEST0000",
    "SecretAccessKey": "topology-test",
    "Token": "topology-test",
    "Expiration": "2099-01-01T00:00:00Z",
}

instances_file = Path(sys.argv[1])
tokens: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    """Answers what EC2 answers, to the instances it knows and nobody else."""

    def answer(self, text: str | None) -> None:
        """Sends `text`, or 404 where there is none."""
        body = (text or "").encode()
        self.send_response(HTTPStatus.NOT_FOUND if text is None else HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        # The SDK wants to hear a token's life.
        self.send_header(f"{TOKEN}-ttl-seconds", "21600")
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:  # noqa: N802  the name is http.server's
        if self.path != "/latest/api/token":
            return self.answer(None)
        token = secrets.token_urlsafe()
        tokens.add(token)
        return self.answer(token)

    def do_GET(self) -> None:  # noqa: N802
        instance = json.loads(instances_file.read_text()).get(self.client_address[0])
        if instance is None:
            return self.answer(None)
        if self.headers.get(TOKEN) not in tokens:
            return self.send_error(HTTPStatus.UNAUTHORIZED)
        known = {
            "user-data": json.dumps(instance["user_data"]),
            "meta-data/instance-id": instance["id"],
            "meta-data/ami-id": "ami-00000000000000000",
            "meta-data/local-ipv4": self.client_address[0],
            "meta-data/placement/region": REGION,
            "meta-data/iam/security-credentials/": ROLE,
            f"meta-data/iam/security-credentials/{ROLE}": json.dumps(CREDENTIALS),
        }
        return self.answer(known.get(self.path.removeprefix("/latest/")))


ThreadingHTTPServer(ADDRESS, Handler).serve_forever()
