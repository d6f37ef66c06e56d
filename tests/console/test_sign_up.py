"""From the first page to an organization with welcome credit."""

from functools import partial
from typing import ClassVar

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core import mail
from django.core.mail import EmailMessage
from django.test import Client
from pytest_django import Settings

from accounts.models import AdmissionChange, Organization, User
from accounts.organizations import MAX_ORGANIZATIONS_PER_OWNER, create_organization
from billing.admission.balances import read_balance
from tests.support.people import PASSWORD, client_of, make_person
from tests.support.together import run_together

CREDENTIALS = {"email": "dora@example.org", "password1": PASSWORD, "password2": PASSWORD}


@pytest.fixture(autouse=True)
def _welcome_credit(settings: Settings) -> None:
    settings.WELCOME_CREDIT_USD = "5"


def code_of(message: EmailMessage) -> str:
    """Return the code that the subject shows, so that it can be read where mail is only listed."""
    code, _, rest = message.subject.removeprefix("CrossModel: ").partition(" ")
    assert rest == "is your code"
    assert code in message.body
    return code


@pytest.mark.django_db
def test_signing_up_leads_to_an_organization_with_welcome_credit() -> None:
    client = Client()
    response = client.post("/accounts/signup/", CREDENTIALS, follow=True)
    assert response.redirect_chain[-1][0] == "/accounts/confirm-email/"
    response = client.post("/accounts/confirm-email/", {"code": code_of(mail.outbox[-1])}, follow=True)
    assert response.redirect_chain[-1][0] == "/organizations/new/"
    assert [str(message) for message in response.context["messages"]] == ["dora@example.org is confirmed."]
    response = client.post("/organizations/new/", {"name": "Dora's Bakery"}, follow=True)
    assert response.redirect_chain[-1][0] == "/console/doras-bakery/"
    assert 'title="$5.00"' in response.content.decode()
    organization = Organization.objects.get()
    assert read_balance(organization).available_nanos == 5 * 10**9
    assert AdmissionChange.objects.count() == 0


class CountingHasher(MD5PasswordHasher):
    hashed: ClassVar[list[str]] = []

    def encode(self, password: str, salt: str) -> str:
        self.hashed.append(password)
        return super().encode(password, salt)


@pytest.mark.django_db
@pytest.mark.parametrize("has_account", [False, True])
def test_the_time_of_an_answer_does_not_tell_who_has_an_account(has_account: bool, settings: Settings) -> None:
    """What takes most of it, the slow hash of the password, is made for everybody."""
    if has_account:
        make_person("dora")
    settings.PASSWORD_HASHERS = [f"{__name__}.CountingHasher"]
    CountingHasher.hashed.clear()
    assert Client().post("/accounts/signup/", CREDENTIALS)["Location"] == "/accounts/confirm-email/"
    assert CountingHasher.hashed == [PASSWORD]


@pytest.mark.django_db
def test_welcome_credit_is_for_the_first_organization_of_a_person() -> None:
    client = client_of(make_person("dora"))
    for name in ("One", "Two"):
        client.post("/organizations/new/", {"name": name})
    assert [read_balance(organization).posted_nanos for organization in Organization.objects.order_by("pk")] == [
        5 * 10**9,
        0,
    ]


@pytest.mark.django_db(transaction=True)
def test_many_at_once_are_welcomed_once_and_stay_within_the_bound() -> None:
    dora = make_person("dora")
    for number in range(MAX_ORGANIZATIONS_PER_OWNER - 2):
        create_organization(name=f"Number {number}", owner=dora)
    clients = [client_of(dora) for _ in range(4)]
    assert not run_together(*(partial(client.post, "/organizations/new/", {"name": "At once"}) for client in clients))
    owned = Organization.objects.filter(members__user=dora)
    assert owned.count() == MAX_ORGANIZATIONS_PER_OWNER
    assert sum(read_balance(organization).posted_nanos for organization in owned) == 5 * 10**9


@pytest.mark.django_db
def test_without_redis_an_organization_is_made_all_the_same(redis_away: None) -> None:
    response = client_of(make_person("dora")).post("/organizations/new/", {"name": "One"}, follow=True)
    page = response.content.decode()
    assert "as soon as the admission store" in page
    assert "cannot say what is available" in page
    assert AdmissionChange.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", "  ", "x" * 101])
def test_an_organization_needs_a_name(name: str) -> None:
    response = client_of(make_person("dora")).post("/organizations/new/", {"name": name})
    assert response.context["form"].errors["name"]
    assert not Organization.objects.exists()


@pytest.mark.django_db
def test_an_address_that_nobody_confirmed_owns_no_organization() -> None:
    response = client_of(User.objects.create_user("dora@example.org", PASSWORD)).post(
        "/organizations/new/", {"name": "D"}
    )
    assert "Confirm dora@example.org first" in response.content.decode()
    assert not Organization.objects.exists()


@pytest.mark.django_db
def test_a_name_without_letters_gets_a_slug_too() -> None:
    response = client_of(make_person("dora")).post("/organizations/new/", {"name": "株式会社"}, follow=True)
    assert response.redirect_chain[-1][0] == "/console/organization/"


@pytest.mark.django_db
def test_the_console_opens_the_organization_of_last_time() -> None:
    client = client_of(make_person("dora"))
    client.post("/organizations/new/", {"name": "Aardvark"})
    client.post("/organizations/new/", {"name": "Zebra"})
    client.get("/console/zebra/usage/")
    assert client.get("/console/")["Location"] == "/console/zebra/"
    assert client_of(make_person("emil")).get("/console/")["Location"] == "/organizations/new/"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "page", ["/", "/reference/", "/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"]
)
def test_pages_for_everybody(page: str) -> None:
    response = Client().get(page)
    assert response.status_code == 200
    assert "CrossModel" in response.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["/accounts/email/", "/accounts/password/change/", "/accounts/logout/"])
def test_pages_of_ones_own_account(page: str) -> None:
    assert client_of(make_person("dora")).get(page).status_code == 200


@pytest.mark.django_db
def test_the_form_says_what_a_password_must_be_in_one_sentence() -> None:
    page = Client().get("/accounts/signup/").content.decode()
    assert "At least 10 characters: nothing like your address" in page and "too similar" not in page
    for password in ("dora@example", "ninechars", "password1234"):
        form = {"email": "dora@example.org", "password1": password, "password2": password}
        assert "errorlist" in Client().post("/accounts/signup/", form).content.decode(), password
