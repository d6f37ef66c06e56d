"""The admin's lists stay quick as tables grow: words are looked up by an index, rows are read together, pages end."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db import connection
from django.db.models import BooleanField, Model
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.keys import create_key
from accounts.models import Organization
from billing.models import CreditLot, LedgerTransaction, UsageRecord
from operations.admin.base import MAX_PAGES, InfinitePaginator
from operations.admin.keys import ApiKeyAdmin
from operations.admin.searching import EXACT
from tests.billing.ledger_factory import USD, give
from tests.support.operators import operator_client
from tests.support.people import People, client_of, make_person
from tests.support.settled_usage import billed_event, sell_model, settle

RECORDS = "/admin/billing/usagerecord/"
TRANSACTIONS = "/admin/billing/ledgertransaction/"
# These have a row for an organization or a day at most.
# Of jobs the runs of an hour together for 30 days, of providers two a day.
NEVER_MANY = {"languagemodel", "upstream", "jobrun", "providerreport"}
SMALL = {"organizationbalance", "reconciliationbreak", "paymentbreak"}


@pytest.fixture
def operator(people: People) -> Client:
    return client_of(make_person("operator", is_staff=True, is_superuser=True))


def listed(client: Client, url: str, text: str) -> list[Any]:
    response = client.get(url, {"q": text})
    assert response.status_code == 200, text
    return [row.pk for row in response.context["cl"].result_list]


def indexed_columns(model: type[Model]) -> Iterator[str]:
    """Yield the columns that an index of a table begins with, or has behind the few names of providers."""
    fields: Any = model._meta.fields
    for field in fields:
        if field.db_index or field.unique or field.primary_key:
            yield field.name
    for index in model._meta.indexes:
        yield from [name.removeprefix("-") for name in index.fields[:1]]
    for constraint in model._meta.constraints:
        columns = list(getattr(constraint, "fields", ()))
        yield from columns[: 2 if columns[:1] == ["provider"] else 1]


def test_what_is_looked_up_whole_has_an_index() -> None:
    looked_up = 0
    for model, page in admin.site._registry.items():
        for path in page.search_fields:
            if not str(path).startswith(EXACT) or model._meta.model_name in SMALL:
                continue
            looked_up += 1
            at: Any = model
            for name in str(path).removeprefix(EXACT).split("__"):
                field = at._meta.get_field(name)
                column = field.name
                assert column in set(indexed_columns(at)) | {f"{column}_id"}, (model, path)
                at = field.related_model or at
    assert looked_up > 10


def test_what_a_list_is_ordered_by_has_an_index() -> None:
    for model, page in admin.site._registry.items():
        ordering = page.ordering or model._meta.ordering or ["-pk"]
        first = str(ordering[0]).removeprefix("-")
        field: Any = model._meta.pk if first == "pk" else model._meta.get_field(first)
        known = set(indexed_columns(model))
        assert model._meta.model_name in SMALL | NEVER_MANY or field.name in known, (model, first)


def test_a_list_without_a_word_to_search_for_is_not_made_distinct(operator: Client, people: People) -> None:
    """Postgres would sort the whole table for it, all columns of it."""
    for model in admin.site._registry:
        page = operator.get(f"/admin/{model._meta.app_label}/{model._meta.model_name}/")
        assert not page.context["cl"].queryset.query.distinct, model


def test_the_page_of_a_person_offers_permissions_that_open_something(operator: Client, people: People) -> None:
    odd = Permission.objects.get(codename="delete_session")
    people.bob.user_permissions.add(odd)
    page = operator.get(f"/admin/accounts/user/{people.bob.pk}/change/")
    offered = set(page.context["adminform"].form.fields["user_permissions"].queryset)
    assert odd in offered, "What somebody has is not lost when their page is saved."
    assert Permission.objects.get(codename="change_approval") in offered
    assert Permission.objects.get(codename="add_contenttype") not in offered


@pytest.mark.long
def test_every_filter_that_a_list_offers_filters(operator: Client, people: People) -> None:
    followed = 0
    for model in admin.site._registry:
        path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        shown = operator.get(path)
        for spec in shown.context["cl"].filter_specs:
            for choice in list(spec.choices(shown.context["cl"]))[:3]:
                assert operator.get(path + choice["query_string"]).status_code == 200, (path, choice)
                followed += 1
    assert followed > 40


def test_no_filter_reads_a_table_for_the_values_to_choose_from() -> None:
    """As Django does for a text without choices. A relation lists its own, short, table."""
    filters = 0
    for model, page in admin.site._registry.items():
        for entry in page.list_filter:
            if isinstance(entry, str):
                field: Any = model._meta.get_field(entry)
                assert field.choices or field.is_relation or isinstance(field, BooleanField), (model, entry)
                filters += 1
    assert filters > 10


def test_a_request_an_organization_and_a_transaction_are_found(operator: Client, people: People) -> None:
    version = sell_model()
    settle([billed_event(people.key, version) for _ in range(2)])
    first, second = UsageRecord.objects.order_by("request_id")
    hexadecimal = first.request_id.hex
    for text in (str(first.pk), hexadecimal, f"req_{hexadecimal}", f'"msg_{hexadecimal}"'):
        assert listed(operator, RECORDS, text) == [first.pk]
    assert listed(operator, RECORDS, str(people.organization.pk)) == [second.pk, first.pk]
    debit = LedgerTransaction.objects.get()
    assert listed(operator, TRANSACTIONS, debit.idempotency_key) == [debit.pk]
    assert listed(operator, TRANSACTIONS, "ALICE") == [debit.pk]
    assert listed(operator, TRANSACTIONS, f"alice {debit.idempotency_key}") == [debit.pk]
    for text in ("charlie", "nobody", "9" * 40, "-1", "'", '"', f"{hexadecimal} {second.pk}", hexadecimal[1:]):
        assert listed(operator, RECORDS, text) == [], text
        assert listed(operator, TRANSACTIONS, text) == [], text


@pytest.mark.parametrize("rows", [1, 4])
def test_the_page_of_a_lot_costs_the_same_queries(operator: Client, people: People, rows: int) -> None:
    lot = give(people.organization, 10 * USD)
    version = sell_model()
    for _ in range(rows):
        settle([billed_event(people.key, version)])
    assert lot.entries.count() == rows + 1
    with CaptureQueriesContext(connection_of(CreditLot)) as queries:
        page = operator.get(f"/admin/billing/creditlot/{lot.pk}/change/")
    assert f"Usage {LedgerTransaction.objects.latest('id').pk}" in page.content.decode()
    assert len(queries) < 14


def connection_of(model: type[Model]) -> Any:
    from django.db import connections, router

    return connections[router.db_for_read(model)]


def test_a_list_that_is_not_counted_has_a_last_page(operator: Client, people: People) -> None:
    assert Organization.objects.exists()
    assert operator.get(TRANSACTIONS, {"p": MAX_PAGES}).status_code == 200
    assert operator.get(TRANSACTIONS, {"p": MAX_PAGES + 1}).status_code == 302


KEYS = "/admin/accounts/apikey/"


def test_a_key_is_found_by_its_ends_its_organization_and_among_the_newest_by_name(
    operator: Client, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = people.key
    other, _ = create_key(people.charlies, name="Worker", created_by=None)
    for text in (key.prefix, key.last_four, people.organization.slug, people.organization.name, "ackend"):
        assert listed(operator, KEYS, text) == [key.pk], text
    monkeypatch.setattr(ApiKeyAdmin, "searched_newest", 1)
    assert listed(operator, KEYS, "orke") == [other.pk]
    assert listed(operator, KEYS, "ackend") == []
    assert listed(operator, KEYS, f"{people.organization.slug} ackend") == [key.pk]
    assert listed(operator, KEYS, f"{people.organization.slug} orke") == []


def test_tables_that_grow_with_customers_are_not_counted(operator: Client) -> None:
    for model, page in admin.site._registry.items():
        assert model._meta.model_name in NEVER_MANY or issubclass(page.paginator, InfinitePaginator), model
    with CaptureQueriesContext(connection) as queries:
        assert operator.get(KEYS, {"q": "cm-"}).status_code == 200
    assert not any("COUNT(" in query["sql"] for query in queries if "apikey" in query["sql"])


@pytest.mark.django_db
@pytest.mark.parametrize(("asked", "says"), [("", "There are no "), ("?q=nowhere", "match")])
def test_an_empty_list_says_so_in_plain_words(asked: str, says: str) -> None:
    page = operator_client("root", is_superuser=True).get(f"/admin/billing/topup/{asked}").content.decode()
    assert says in page
    assert "yielded" not in page
    assert ("Show all" in page) == bool(asked)
