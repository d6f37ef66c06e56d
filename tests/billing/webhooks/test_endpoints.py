"""Endpoints and their secrets: what may be typed, how many there are, and what is stored of a secret."""

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from allauth.mfa.models import Authenticator
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings
from standardwebhooks import Webhook, WebhookVerificationError

from accounts import sealing
from accounts.models import Organization
from accounts.sealing import LostSecretError
from accounts.second_factors import PURPOSE as OF_SECOND_FACTORS
from billing.models import WebhookDelivery, WebhookEndpoint
from billing.webhooks.endpoints import (
    MAX_ENDPOINTS_PER_ORGANIZATION,
    ROTATION,
    InvalidUrlError,
    TooManyEndpointsError,
    add_endpoint,
    check_url,
    live_secrets,
    remove_endpoint,
    rotate_secret,
    switch_off,
    switch_on,
)
from billing.webhooks.queue import MAX_TESTS_PER_HOUR, TooManyTestsError, queue_test
from billing.webhooks.secrets import sign, unseal
from tests.billing.ledger_factory import make_organization
from tests.support.people import make_person
from tests.support.together import run_together

pytestmark = pytest.mark.django_db
URL = "https://example.org/hook"


@pytest.fixture
def acme() -> Organization:
    return make_organization()


def verifies(secret: str, endpoint: WebhookEndpoint, *, at: datetime) -> bool:
    headers = sign('{"a":1}', event_id="evt_1", at=at, sealed_secrets=live_secrets(endpoint, now=at))
    try:
        Webhook(secret).verify('{"a":1}', dict(headers))
    except WebhookVerificationError:
        return False
    return True


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://example.org/", "must begin with https://"),
        ("http://example.org/", "must begin with https://."),
        ("example.org/hook", "must begin with https://"),
        ("https://", "must begin with https://"),
        ("https://user:word@example.org/", "no name, password"),
        ("https://example.org/#x", "no name, password or fragment"),
        ("https://example.org/a b", "plain characters"),
        ("https://example.org/\r\nx: y", "plain characters"),
        ("https://exämple.org/", "plain characters"),
        ("https://example.org/" + "x" * 500, "at most 500"),
        ("https://example.org:99999/", "not a URL"),
        ("https://example.org:0/", "port"),
        ("https://[::1/", "not a URL"),
        ("https://127.0.0.1/", "not public"),
        ("https://[::ffff:10.0.0.1]/", "not public"),
    ],
)
def test_a_url_that_leads_nowhere_good_is_refused(url: str, problem: str, settings: Settings) -> None:
    settings.WEBHOOK_NETWORKS, settings.WEBHOOK_ALLOWS_HTTP = [], False
    with pytest.raises(InvalidUrlError, match=problem):
        check_url(url)


def test_a_secret_is_shown_once_and_not_stored_in_the_clear(acme: Organization) -> None:
    endpoint, secret = add_endpoint(acme, url=f" {URL} ", created_by=None)
    assert secret.startswith("whsec_")
    assert endpoint.url == URL
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_jsonb(endpoint)::text FROM billing_webhookendpoint endpoint")
        [stored] = cursor.fetchone()
    assert secret.removeprefix("whsec_") not in stored
    assert unseal(endpoint.sealed_secret) == secret
    assert verifies(secret, endpoint, at=datetime.now(UTC))


def test_for_a_day_both_secrets_sign(acme: Organization) -> None:
    endpoint, old = add_endpoint(acme, url=URL, created_by=None)
    new = rotate_secret(endpoint)
    endpoint.refresh_from_db()
    now = datetime.now(UTC)
    assert verifies(old, endpoint, at=now)
    assert verifies(new, endpoint, at=now)
    assert live_secrets(endpoint, now=now + ROTATION) == [endpoint.sealed_secret]
    assert timedelta(hours=24) == ROTATION
    newest = rotate_secret(endpoint)
    endpoint.refresh_from_db()
    assert not verifies(old, endpoint, at=now)
    assert verifies(new, endpoint, at=now)
    assert verifies(newest, endpoint, at=now)


def test_a_secret_survives_a_change_of_the_signing_key_as_long_as_the_old_one_is_named(
    acme: Organization, settings: Settings
) -> None:
    endpoint, secret = add_endpoint(acme, url=URL, created_by=None)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another", [settings.SECRET_KEY]
    assert unseal(endpoint.sealed_secret) == secret
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(LostSecretError):
        unseal(endpoint.sealed_secret)


@pytest.mark.django_db(transaction=True)
def test_there_are_so_many_endpoints_and_no_more_however_many_ask_at_once() -> None:
    acme = make_organization()
    for _ in range(MAX_ENDPOINTS_PER_ORGANIZATION - 1):
        add_endpoint(acme, url=URL, created_by=None)

    errors = run_together(*[lambda: add_endpoint(acme, url=URL, created_by=None)] * 4)
    assert [type(error) for error in errors] == [TooManyEndpointsError] * 3
    assert WebhookEndpoint.objects.count() == MAX_ENDPOINTS_PER_ORGANIZATION


def test_what_is_removed_is_gone_with_its_secrets(acme: Organization) -> None:
    endpoint, _ = add_endpoint(acme, url=URL, created_by=None)
    queue_test(endpoint)
    remove_endpoint(endpoint)
    endpoint.refresh_from_db()
    assert (endpoint.sealed_secret, endpoint.is_on) == ("", False)
    assert list(WebhookDelivery.objects.values_list("state", flat=True)) == ["failed"]
    assert switch_on(endpoint) is False


def test_switching_keeps_what_is_missed(acme: Organization) -> None:
    endpoint, _ = add_endpoint(acme, url=URL, created_by=None)
    queue_test(endpoint)
    assert switch_off(endpoint, reason="By hand.") is True
    assert switch_off(endpoint, reason="Again.") is False
    endpoint.refresh_from_db()
    assert endpoint.switched_off_reason == "By hand."
    assert WebhookDelivery.objects.get().state == "failed"
    assert switch_on(endpoint) is True


def test_tests_are_bounded(acme: Organization) -> None:
    endpoint, _ = add_endpoint(acme, url=URL, created_by=None)
    for _ in range(MAX_TESTS_PER_HOUR):
        queue_test(endpoint)
    with pytest.raises(TooManyTestsError):
        queue_test(endpoint)
    WebhookDelivery.objects.update(created_at=timezone.now() - timedelta(hours=1))
    queue_test(endpoint)


def test_after_the_signing_key_was_rotated_the_old_one_can_go(settings: Settings) -> None:
    """The runbook's way: a fallback, then `reseal_secrets`, then no fallback."""
    endpoint, secret = add_endpoint(make_organization(), url=URL, created_by=None)
    factor = Authenticator.objects.create(
        user=make_person("bob"),
        type=Authenticator.Type.TOTP,
        data={"secret": sealing.seal("JBSWY3DP", purpose=OF_SECOND_FACTORS)},
    )
    out = StringIO()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "n" * 60, [settings.SECRET_KEY]
    call_command("reseal_secrets", "--dry-run", stdout=out)
    assert "1 webhook secrets would be" in out.getvalue()
    call_command("reseal_secrets", stdout=out)
    settings.SECRET_KEY_FALLBACKS = []
    endpoint.refresh_from_db()
    factor.refresh_from_db()
    assert unseal(endpoint.sealed_secret) == secret
    assert sealing.unseal(factor.data["secret"], purpose=OF_SECOND_FACTORS) == "JBSWY3DP"
    call_command("reseal_secrets", stdout=out)
    assert out.getvalue().splitlines()[-3:] == [
        "0 webhook secrets are sealed by the new key.",
        "0 second factors are sealed by the new key.",
        "0 keys of the ledger's seals are sealed by the new key.",
    ]
    settings.SECRET_KEY = "m" * 60
    with pytest.raises(CommandError, match="2 secrets are opened by no key"):
        call_command("reseal_secrets", stdout=out)
