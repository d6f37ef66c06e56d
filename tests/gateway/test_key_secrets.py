"""Second secrets of a key and keys that are disabled: every gateway knows at once, whatever it remembers."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.key_secrets import (
    MAX_TEMPORARY_SECRETS,
    OverlapError,
    end_lent_secrets,
    find_key,
    lend_secret,
    rotate_secret,
)
from accounts.keys import KeyAlreadyRevokedError, disable_key, enable_key, revoke_key
from accounts.models import TemporarySecret
from billing.admission.outbox import publish_pending_changes
from tests.gateway.test_authentication import assert_unauthorized, post
from tests.support.extra_gateway import ExtraGateway
from tests.support.live_stack import LiveStack, Tenant
from tests.support.people import make_person

pytestmark = pytest.mark.keeps_redis


def status(base_url: str, secret: str) -> int:
    return post(base_url, {"x-api-key": secret}).status_code


def test_a_disabled_key_is_refused_until_it_is_enabled(
    stack: LiveStack, second_gateway: ExtraGateway, alice: Tenant
) -> None:
    gateways = [stack.base_url, second_gateway.base_url]
    assert [status(each, alice.secret) for each in gateways] == [200, 200]
    assert disable_key(alice.key)
    assert not disable_key(alice.key)
    publish_pending_changes()
    for each in gateways:
        assert_unauthorized(post(each, alice.headers), "key_disabled")
    assert enable_key(alice.key, enabled_by=None, manages_all=True)
    publish_pending_changes()
    assert [status(each, alice.secret) for each in gateways] == [200, 200]


def test_a_rotated_key_works_with_both_secrets_until_the_overlap_ends(
    stack: LiveStack, second_gateway: ExtraGateway, alice: Tenant
) -> None:
    gateways = [stack.base_url, second_gateway.base_url]
    assert [status(each, alice.secret) for each in gateways] == [200, 200]
    key, second = rotate_secret(alice.key, overlap=timedelta(days=1))
    publish_pending_changes()
    assert [status(each, text) for each in gateways for text in (alice.secret, second)] == [200] * 4
    stack.wait_until_quiet()
    assert {record.key_id for record in stack.records(alice)} == {alice.key.pk}
    _, third = rotate_secret(key, overlap=timedelta())
    publish_pending_changes()
    for each in gateways:
        assert [status(each, text) for text in (alice.secret, second, third)] == [401, 401, 200]


def test_a_second_secret_ends_by_itself_where_it_is_remembered(stack: LiveStack, alice: Tenant) -> None:
    _, second = rotate_secret(alice.key, overlap=timedelta(seconds=3))
    assert [status(stack.base_url, text) for text in (alice.secret, second)] == [200, 200]
    stack.wait_until(lambda: status(stack.base_url, alice.secret) == 401, "the overlap is over")
    assert status(stack.base_url, second) == 200


def test_what_was_lent_to_a_page_ends_with_its_person(stack: LiveStack, alice: Tenant) -> None:
    dora = make_person("dora")
    text, ends_at = lend_secret(alice.key, user=dora)
    assert timedelta(minutes=9) < ends_at - timezone.now() < timedelta(minutes=11)
    assert [status(stack.base_url, each) for each in (alice.secret, text)] == [200, 200]
    assert end_lent_secrets(dora) == 1
    publish_pending_changes()
    assert [status(stack.base_url, each) for each in (alice.secret, text)] == [200, 401]


def test_second_secrets_are_bounded_and_end_with_their_key(stack: LiveStack, alice: Tenant) -> None:
    erin = make_person("erin")
    texts = [lend_secret(alice.key, user=erin)[0] for _ in range(MAX_TEMPORARY_SECRETS + 1)]
    assert TemporarySecret.objects.filter(key=alice.key).count() == MAX_TEMPORARY_SECRETS
    assert [find_key(text) == alice.key for text in texts] == [False] + [True] * MAX_TEMPORARY_SECRETS
    for overlap in (timedelta(seconds=-1), timedelta(days=31)):
        with pytest.raises(OverlapError):
            rotate_secret(alice.key, overlap=overlap)
    revoke_key(alice.key, revoked_by=None)
    publish_pending_changes()
    assert_unauthorized(post(stack.base_url, {"x-api-key": texts[-1]}), "key_revoked")
    with pytest.raises(KeyAlreadyRevokedError):
        rotate_secret(alice.key, overlap=timedelta())
