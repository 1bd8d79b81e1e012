"""Uses a server through the client that was generated from its document: `smoke.py URL`."""

import sys
from http import HTTPStatus

from drawbridge_client import Client
from drawbridge_client.api.items import create_item, find_item, list_items
from drawbridge_client.models import CreateItem, Item, Problem

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)


def expect(kind, answer):
    assert isinstance(answer, kind), f"{kind.__name__} expected: {answer}"
    return answer


made = create_item.sync_detailed(client=client, body=CreateItem(name="Lantern", description=None))
assert made.status_code == HTTPStatus.CREATED, made
item = expect(Item, made.parsed)
assert (item.name, item.description) == ("Lantern", None), item
assert expect(Item, find_item.sync(client=client, id=item.id)) == item

found = expect(list, list_items.sync(client=client, limit=1))
assert [entry.id for entry in found] == [item.id], found

problem = expect(Problem, create_item.sync(client=client, body=CreateItem(name="")))
assert problem.status == HTTPStatus.BAD_REQUEST and "name" in problem.detail, problem
