from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from accounts.models import Role
from billing.credit.redemption import create_codes
from billing.credit.top_ups import grant_credit
from billing.ledger import statements
from billing.models import CreditLot, LedgerTransaction, OrganizationBalance
from tests.support.people import People, client_of
from tests.support.settled_usage import billed_event, sell_model, settle

BILLING = "/console/alice/billing/"


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def grant(people: People, usd: int, kind: CreditLot.Kind, key: str, *, expires_at: datetime | None = None) -> None:
    grant_credit(
        people.organization,
        amount_nanos=usd * 10**9,
        kind=kind,
        reason=f"Grant {key}",
        actor="operator@example.org",
        idempotency_key=key,
        expires_at=expires_at,
    )


def test_the_statement_adds_up_over_pages(alice: Client, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "billing.ledger.statements.list_statement.__kwdefaults__",
        {"before": None, "kinds": (), "since": None, "until": None, "limit": 3},
    )
    version = sell_model()
    grant(people, 1, CreditLot.Kind.PROMOTIONAL, "a")
    for _ in range(4):
        settle([billed_event(people.key, version, input_tokens=100_000)])
    grant(people, 2, CreditLot.Kind.PAID, "b")
    for _ in range(6):
        settle([billed_event(people.key, version, input_tokens=100_000)])
    lines: list[statements.StatementLine] = []
    query: dict[str, str] = {}
    while True:
        page = alice.get(BILLING, query).context["page"]
        lines += page.lines
        if page.older_than is None:
            break
        query = {"before": str(page.older_than)}
    assert len(lines) == 12
    assert [line.transaction.pk for line in lines] == sorted((line.transaction.pk for line in lines), reverse=True)
    balance = 0
    for line in reversed(lines):
        balance += line.amount_nanos
        assert line.balance_after_nanos == balance
    # What ten requests cost is above what was granted: the last lines show a debt, and the page is true about it.
    assert balance == OrganizationBalance.objects.get(organization=people.organization).posted_nanos < 0


def test_lots_stand_in_the_order_in_which_they_burn(alice: Client, people: People) -> None:
    grant(people, 10, CreditLot.Kind.PAID, "paid")
    grant(people, 4, CreditLot.Kind.PROMOTIONAL, "later", expires_at=datetime.now(UTC) + timedelta(days=9))
    grant(people, 3, CreditLot.Kind.PROMOTIONAL, "sooner", expires_at=datetime.now(UTC) + timedelta(days=2))
    settle([billed_event(people.key, sell_model(), input_tokens=1_000_000, output_tokens=0)])
    response = alice.get(BILLING)
    lots = list(response.context["lots"])
    assert [(lot.origin, lot.remaining_nanos) for lot in lots] == [
        ("Grant later", 4 * 10**9),
        ("Grant paid", 10 * 10**9),
    ]
    assert "Never" in response.content.decode()


def test_the_statement_shows_parts(alice: Client, people: People) -> None:
    grant(people, 10, CreditLot.Kind.PAID, "paid")
    settle([billed_event(people.key, sell_model())])

    def kinds(shown: str) -> list[str]:
        lines = alice.get(BILLING, {"show": shown}).context["page"].lines
        assert all(line.balance_after_nanos is None for line in lines) or not shown
        return [line.transaction.kind for line in lines]

    assert kinds("") == ["usage", "top_up"]
    assert kinds("credit") == ["top_up"]
    assert kinds("usage") == ["usage"]
    assert alice.get(BILLING, {"show": "odd"}).status_code == 404


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30, "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_wrong_page_is_not_found(alice: Client, before: str) -> None:
    assert alice.get(BILLING, {"before": before}).status_code == 404


def test_a_transaction_shows_the_requests_it_paid_for_and_no_account_of_the_house(
    alice: Client, people: People
) -> None:
    grant(people, 10, CreditLot.Kind.PAID, "paid")
    events = [billed_event(people.key, sell_model()), billed_event(people.key, sell_model("acme/small"))]
    settle(events)
    usage = LedgerTransaction.objects.get(kind="usage")
    response = alice.get(f"{BILLING}transactions/{usage.pk}/")
    assert {record.request_id.hex for record in response.context["records"]} == {event.request_id for event in events}
    assert response.context["amount_nanos"] == -sum(event.cost_nanos for event in events)
    page = response.content.decode()
    assert "Prepaid" in page
    assert "Revenue" not in page
    assert "operator@example.org" not in page


def test_a_code_adds_credit_once(alice: Client, people: People) -> None:
    (new,) = create_codes(amount_nanos=3 * 10**9, reason="PyCon", created_by="operator@example.org")
    response = alice.post(BILLING, {"code": new.text.lower()}, follow=True)
    assert response.redirect_chain == [(BILLING, 302)]
    page = response.content.decode()
    assert "$3.00 of credit is added." in page
    assert f"Code {new.code.prefix}: PyCon" in page
    assert new.text not in page
    assert "redeemed here before" in alice.post(BILLING, {"code": new.text}, follow=True).content.decode()
    assert OrganizationBalance.objects.get(organization=people.organization).posted_nanos == 3 * 10**9


@pytest.mark.parametrize("code", ["", "wrong", "x" * 101])
def test_a_wrong_code_is_told_beside_the_field(alice: Client, code: str) -> None:
    response = alice.post(BILLING, {"code": code})
    assert response.status_code == 422
    assert response.context["form"].errors["code"]
    assert not LedgerTransaction.objects.exists()


def test_viewers_and_developers_redeem_nothing(people: People) -> None:
    (new,) = create_codes(amount_nanos=10**9, reason="PyCon", created_by="operator@example.org")
    for role in (Role.VIEWER, Role.DEVELOPER):
        people.give_bob(role)
        assert client_of(people.bob).post(BILLING, {"code": new.text}).status_code == 403
    people.give_bob(Role.BILLING)
    assert client_of(people.bob).post(BILLING, {"code": new.text}).status_code == 302


def test_a_code_is_redeemed_without_redis(alice: Client, people: People, redis_away: None) -> None:
    (new,) = create_codes(amount_nanos=10**9, reason="PyCon", created_by="operator@example.org")
    assert "It takes effect as soon as" in alice.post(BILLING, {"code": new.text}, follow=True).content.decode()
    assert OrganizationBalance.objects.get(organization=people.organization).posted_nanos == 10**9
