"""Guessing is limited, and no stranger's guesses shut a customer out."""

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from tests.support.people import PASSWORD, make_person

LOGIN = "/accounts/login/"
PROXY = "10.0.0.1"
TOO_MANY = "Too many failed attempts"


@pytest.fixture(autouse=True)
def _behind_a_proxy(db: None, settings: Settings) -> None:
    settings.TRUSTED_PROXIES = [f"{PROXY}/32"]
    # A tenth of what the product allows, because each guess costs a slow hash.
    settings.ACCOUNT_RATE_LIMITS = {**settings.ACCOUNT_RATE_LIMITS, "sign_in_failed_anywhere": "10/h/key"}
    make_person("alice")


def sign_in(client: Client, password: str, *, of: str = "203.0.113.5", peer: str = PROXY) -> str:
    """Return the page that a try to sign in as Alice leads to; "" when it let the browser in."""
    response = client.post(
        LOGIN, {"login": "alice@example.org", "password": password}, REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=of
    )
    return "" if response.status_code == 302 else response.content.decode()


def test_five_failures_of_an_address_are_enough() -> None:
    pages = [sign_in(Client(), "wrong password") for _ in range(6)]
    assert [TOO_MANY in page for page in pages] == [False] * 5 + [True]
    assert TOO_MANY in sign_in(Client(), PASSWORD)


def test_a_strangers_failures_do_not_lock_the_customer_out() -> None:
    for _ in range(6):
        sign_in(Client(), "wrong password", of="198.51.100.9")
    assert sign_in(Client(), PASSWORD, of="203.0.113.5") == ""


def test_nobody_escapes_by_writing_the_header_themselves() -> None:
    """Only the hop that the trusted proxy saw counts, and without a proxy the peer."""
    for number in range(5):
        sign_in(Client(), "wrong password", of=f"192.0.2.{number}, 198.51.100.9")
    assert TOO_MANY in sign_in(Client(), "wrong password", of="192.0.2.77, 198.51.100.9")
    for number in range(5):
        sign_in(Client(), "wrong password", of=f"192.0.2.{number}", peer="198.51.100.10")
    assert TOO_MANY in sign_in(Client(), "wrong password", of="192.0.2.78", peer="198.51.100.10")


def test_neighbours_in_one_ipv6_network_count_as_one() -> None:
    for number in range(5):
        sign_in(Client(), "wrong password", of=f"2001:db8:1:2::{number}")
    assert TOO_MANY in sign_in(Client(), "wrong password", of="2001:db8:1:2:ffff::1")
    assert TOO_MANY not in sign_in(Client(), "wrong password", of="2001:db8:1:3::1")


def test_guesses_from_many_addresses_meet_a_limit_that_spares_known_browsers() -> None:
    customer = Client()
    assert sign_in(customer, PASSWORD) == ""
    customer.post("/accounts/logout/")
    for number in range(10):
        assert TOO_MANY not in sign_in(Client(), "wrong password", of=f"198.51.{number}.1")
    assert TOO_MANY in sign_in(Client(), PASSWORD, of="198.51.200.1")
    assert sign_in(customer, PASSWORD) == ""


def test_a_known_browser_is_known_for_its_own_account_only() -> None:
    make_person("mallory")
    mallory = Client()
    mallory.post(LOGIN, {"login": "mallory@example.org", "password": PASSWORD}, REMOTE_ADDR="198.51.100.9")
    mallory.post("/accounts/logout/")
    for number in range(10):
        sign_in(Client(), "wrong password", of=f"198.51.{number}.1")
    assert TOO_MANY in sign_in(mallory, PASSWORD, of="198.51.100.9")


def test_operators_sign_in_under_the_same_limits() -> None:
    response = Client().get("/admin/login/?next=/admin/")
    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/?next=")
    assert Client().post("/admin/login/", {"username": "alice@example.org", "password": PASSWORD}).status_code == 302


@pytest.mark.parametrize("address", ["alice@example.org", "nobody@example.org"])
def test_no_mailbox_is_flooded_from_however_many_addresses(address: str, settings: Settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = {
        **settings.ACCOUNT_RATE_LIMITS,
        "mail_by_strangers": "3/h/key",
        "reset_password": "",
        "confirm_email": "",
    }
    pages = []
    for number in range(3):
        asking = Client(REMOTE_ADDR=PROXY, HTTP_X_FORWARDED_FOR=f"198.51.{number}.1")
        asked = asking.post("/accounts/password/reset/", {"email": address.upper()}, follow=True)
        new = {"email": address, "password1": PASSWORD, "password2": PASSWORD}
        signed_up = asking.post("/accounts/signup/", new, follow=True)
        pages += [asked.content.decode(), signed_up.content.decode()]
    assert [message.to for message in mail.outbox] == [[address]] * 3
    assert ["Many mails went to" in page for page in pages] == [False] * 3 + [True] * 3


def test_the_counts_are_shared_by_all_processes() -> None:
    cache.set("a_count", 7)
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM accounts_shared_cache WHERE cache_key LIKE '%a_count'")
        assert cursor.fetchone() == (1,)
