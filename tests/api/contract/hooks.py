"""What schemathesis cannot know: who may do what, and which keys were used.

Some operations end sessions, so a token is looked at before it is used, and made anew when it is no longer good. Who
signs in comes in the environment, so that a list of processes shows no password.
"""

import os
import uuid

import requests
import schemathesis
from schemathesis import GenerationMode

URL = os.environ["DRAWBRIDGE_URL"]
CREDENTIALS = {"email": os.environ["DRAWBRIDGE_EMAIL"], "password": os.environ["DRAWBRIDGE_PASSWORD"]}

http = requests.Session()
token = None


def bearer():
    return {"Authorization": f"Bearer {token}"}


def is_good():
    return token is not None and http.get(f"{URL}/auth/me", headers=bearer()).status_code == 200


@schemathesis.auth(refresh_interval=None, retry_on=[])
class SignIn:
    def get(self, case, context):
        global token
        if not context.operation.definition.raw.get("security"):
            return None
        if not is_good():
            answer = http.post(f"{URL}/auth/login", json=CREDENTIALS)
            answer.raise_for_status()
            token = answer.json()["token"]
        return bearer()

    def set(self, case, data, context):
        case.headers = case.headers or {}
        case.headers.update(data)


@schemathesis.hook
def before_call(context, case, kwargs):
    # A key that it draws twice replays an answer, maybe of something that it has deleted since.
    is_valid = case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE
    if is_valid and case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
