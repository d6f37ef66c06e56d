"""Each POST of the management API under an Idempotency-Key, by a process that is killed with -9 while it is at it."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from pytest_django.plugin import DjangoDbBlocker

from accounts.keys import create_key
from accounts.models import ApiKey, Invitation, Member, Role
from api.models import ManagementAnswer
from billing.models import WebhookDelivery, WebhookEndpoint
from tests.support.live_stack import LiveStack, end, standing_stack, visit
from tests.support.people import make_person

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
KILLS_AFTER_SECONDS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
CALLERS = 6  # Of the same call at the same time.
ANSWER_SECONDS = 60.0


@pytest.fixture(scope="module")
def _stack(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[LiveStack]:
    with standing_stack(tmp_path_factory.mktemp("killed"), "killed") as stack:
        yield stack


@pytest.fixture
def stack(_stack: LiveStack, django_db_blocker: DjangoDbBlocker) -> Iterator[LiveStack]:
    with visit(_stack, django_db_blocker) as stack:
        yield stack


def test_each_post_is_done_once_whenever_its_process_dies(stack: LiveStack) -> None:
    tenant = stack.make_tenant()
    person = make_person("alice")
    Member.objects.create(organization=tenant.organization, user=person, role=Role.OWNER)
    _, secret = create_key(tenant.organization, name="All", created_by=person, is_management=True, role=Role.OWNER)
    headers = {"authorization": f"Bearer {secret}"}
    hook = call(stack, "webhooks", {"url": "https://example.org/a", "kinds": ["low_balance"]}, headers)["data"]["id"]
    before = effects()
    chance = random.Random(1)
    for number, after in enumerate(KILLS_AFTER_SECONDS):
        posts = {
            "keys": {"name": f"Made {number}"},
            f"keys/apikey_{tenant.key.pk}/rotate": {"overlap_seconds": 0},
            "invitations": {"email": f"guest{number}@example.org", "role": "viewer"},
            "webhooks": {"url": f"https://example.org/{number}", "kinds": ["low_balance"]},
            f"webhooks/{hook}/rotate": {},
            f"webhooks/{hook}/test": {},
        }
        answers: dict[str, set[str]] = {path: set() for path in posts}
        callers = [
            threading.Thread(target=insist, args=(stack, path, body, {**headers, "idempotency-key": f"{path} {number}"},
                                                  answers[path]))
            for path, body in chance.sample(list(posts.items()), len(posts))
            for _ in range(CALLERS)
        ]  # fmt: skip
        for caller in callers:
            caller.start()
        time.sleep(after)
        assert stack.gateway is not None
        end(stack.gateway, signal.SIGKILL)
        stack.start_gateway()
        for caller in callers:
            caller.join(ANSWER_SECONDS)
        # Everybody has the same answer, a new secret among it.
        assert {path: len(seen) for path, seen in answers.items()} == dict.fromkeys(posts, 1), answers
    done = len(KILLS_AFTER_SECONDS)
    assert effects() - before == Counter(keys=done, invitations=done, webhooks=done, deliveries=done)
    assert ManagementAnswer.objects.filter(sealed_answer=None).count() == 0


def effects() -> Counter[str]:
    return Counter(
        keys=ApiKey.objects.count(),
        invitations=Invitation.objects.count(),
        webhooks=WebhookEndpoint.objects.count(),
        deliveries=WebhookDelivery.objects.count(),
    )


def call(stack: LiveStack, path: str, body: dict[str, object], headers: dict[str, str]) -> dict[str, dict[str, str]]:
    answer = httpx.post(f"{stack.base_url}/api/v1/{path}", json=body, headers=headers, timeout=ANSWER_SECONDS)
    assert answer.status_code < 300, answer.text
    content: dict[str, dict[str, str]] = answer.json()
    return content


def insist(stack: LiveStack, path: str, body: dict[str, object], headers: dict[str, str], seen: set[str]) -> None:
    """Call until there is an answer that is one, as a program with retries does."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(f"{stack.base_url}/api/v1/{path}", json=body, headers=headers, timeout=ANSWER_SECONDS)
        except httpx.HTTPError:
            time.sleep(0.1)
            continue
        if (answer.status_code in (409, 429, 503) and "in_progress" in answer.text) or answer.status_code in (429, 503):
            time.sleep(0.1)
            continue
        seen.add(f"{answer.status_code} {answer.text}")
        return
    seen.add(f"{headers['idempotency-key']} had no answer")
