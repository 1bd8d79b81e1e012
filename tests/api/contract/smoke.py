"""Uses a server through the client that was generated from its document: `smoke.py URL`."""

import secrets
import sys
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from drawbridge_client import AuthenticatedClient, Client
from drawbridge_client.api.accounts import find_me, login, register
from drawbridge_client.api.items import create_item, delete_item, find_item, list_items, patch_item
from drawbridge_client.models import CreateItem, Credentials, Item, LoggedIn, PatchItem, Problem, Profile, Register

URL = sys.argv[1]
EMAIL = f"{secrets.token_hex(8)}@example.org"
PASSWORD = secrets.token_urlsafe(24)

anybody = Client(base_url=URL, raise_on_unexpected_status=True)


def expect(kind, answer):
    assert isinstance(answer, kind), f"{kind.__name__} expected: {answer}"
    return answer


profile = expect(Profile, register.sync(client=anybody, body=Register(name="Ada", email=EMAIL, password=PASSWORD)))
assert profile.role == "student", profile
session = expect(LoggedIn, login.sync(client=anybody, body=Credentials(email=EMAIL, password=PASSWORD)))
client = AuthenticatedClient(base_url=URL, token=session.token, raise_on_unexpected_status=True)
assert expect(Profile, find_me.sync(client=client)) == profile

lantern = CreateItem(name="Lantern", description=None)
made = create_item.sync_detailed(client=client, body=lantern, idempotency_key="lantern-1")
assert made.status_code == HTTPStatus.CREATED, made
item = expect(Item, made.parsed)
assert (item.name, item.description) == ("Lantern", None), item
again = create_item.sync_detailed(client=client, body=lantern, idempotency_key="lantern-1")
assert again.parsed == item and again.headers["Idempotent-Replayed"] == "true", again
for name in ("Rope", "Kettle"):
    expect(Item, create_item.sync(client=client, body=CreateItem(name=name)))

# Page by page, as the Link header leads.
names, after = [], {}
for _ in range(3):
    page = list_items.sync_detailed(client=anybody, limit=1, **after)
    names += [entry.name for entry in expect(list, page.parsed)]
    if "Link" not in page.headers:
        break
    link = urlsplit(page.headers["Link"].split(">")[0].removeprefix("<"))
    after = {"after": parse_qs(link.query)["after"][0]}
assert names == ["Kettle", "Rope", "Lantern"], names
assert [entry.name for entry in expect(list, list_items.sync(client=anybody, q="LANT"))] == ["Lantern"]

etag = find_item.sync_detailed(item.id, client=anybody).headers["ETag"]
kept = find_item.sync_detailed(item.id, client=anybody, if_none_match=etag)
assert kept.status_code == HTTPStatus.NOT_MODIFIED, kept
red = PatchItem(description="Red.")
patched = expect(Item, patch_item.sync(item.id, client=client, body=red, if_match=etag))
assert (patched.name, patched.description) == ("Lantern", "Red."), patched
cleared = expect(Item, patch_item.sync(item.id, client=client, body=PatchItem(description=None)))
assert cleared.description is None, cleared
stale = expect(Problem, patch_item.sync(item.id, client=client, body=red, if_match=etag))
assert stale.status == HTTPStatus.PRECONDITION_FAILED, stale

deleted = delete_item.sync_detailed(item.id, client=client)
assert deleted.status_code == HTTPStatus.NO_CONTENT, deleted
gone = expect(Problem, find_item.sync(item.id, client=anybody))
assert gone.status == HTTPStatus.NOT_FOUND and gone.request_id, gone

nameless = expect(Problem, create_item.sync(client=client, body=CreateItem(name="")))
assert nameless.status == HTTPStatus.BAD_REQUEST, nameless
assert [error.field for error in nameless.errors] == ["name"], nameless
stranger = AuthenticatedClient(base_url=URL, token="db_no-token", raise_on_unexpected_status=True)
refused = expect(Problem, create_item.sync(client=stranger, body=lantern))
assert refused.status == HTTPStatus.UNAUTHORIZED, refused
