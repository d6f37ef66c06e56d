"""Reports in Anthropic's shape: buckets, groups, pages, the sums of what was billed, and who may read them."""

from typing import Any

import pytest
from django.test import Client

from accounts.key_format import hash_key
from accounts.keys import create_key, revoke_key
from accounts.models import ApiKey
from billing.checks import CHECKS, run_checks
from crossmodel_site.asgi import is_for_gateway
from gateway.authentication import KeyIdentity, _find_keys
from tests.billing.documents.months import LONG_PROMPT, Customer, at, sell
from tests.billing.ledger_factory import USD

pytestmark = pytest.mark.django_db
USAGE, COST = "/v1/organizations/usage_report/messages", "/v1/organizations/cost_report"


class Reader:
    """A program with a management key of a customer's organization."""

    def __init__(self, customer: Customer) -> None:
        self.customer = customer
        self.key, self.secret = create_key(customer.organization, name="FinOps", created_by=None, is_management=True)

    def get(self, path: str, **query: Any) -> Any:
        response = Client().get(path, query, headers={"x-api-key": self.secret, "anthropic-version": "2023-06-01"})
        return response.json()


@pytest.fixture
def reader() -> Reader:
    customer, large = Customer(), sell()
    small = sell("acme/small", minimum_charge_nanos=7_777, input=333_333)
    customer.give(90 * USD, at(9, 1))
    customer.use(large, at(9, 2, 10), input_tokens=100, output_tokens=20, cache_read_tokens=7, cache_write_5m_tokens=3)
    customer.use(large, at(9, 2, 11), input_tokens=LONG_PROMPT, output_tokens=1)
    customer.use(small, at(9, 2, 11), input_tokens=5, output_tokens=0)
    customer.use(large, at(9, 4), input_tokens=1000, output_tokens=0)
    return Reader(customer)


def test_usage_by_day_holds_empty_days_and_the_sums(reader: Reader) -> None:
    report = reader.get(USAGE, starting_at="2026-09-02T13:00:00Z", ending_at="2026-09-05T00:00:00Z")
    assert [bucket["starting_at"] for bucket in report["data"]] == [f"2026-09-0{day}T00:00:00Z" for day in (2, 3, 4)]
    assert (report["has_more"], report["next_page"]) == (False, None)
    [day], empty, _ = (bucket["results"] for bucket in report["data"])
    assert empty == []
    assert day == {
        "uncached_input_tokens": 100 + LONG_PROMPT + 5,
        "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 3},
        "cache_read_input_tokens": 7,
        "output_tokens": 21,
        "server_tool_use": {"web_search_requests": 0},
        "api_key_id": None,
        "workspace_id": None,
        "model": None,
        "service_tier": None,
        "context_window": None,
        "inference_geo": None,
    }


def test_usage_by_groups_and_filters(reader: Reader) -> None:
    window = {"starting_at": "2026-09-02T00:00:00Z", "ending_at": "2026-09-03T00:00:00Z"}
    [bucket] = reader.get(USAGE, **window, **{"group_by[]": ["model", "context_window", "api_key_id"]})["data"]
    key = f"apikey_{reader.customer.key.pk}"
    assert [
        (row["model"], row["context_window"], row["uncached_input_tokens"], row["api_key_id"])
        for row in bucket["results"]
    ] == [
        ("acme/large", "0-200k", 100, key),
        ("acme/large", "200k-1M", LONG_PROMPT, key),
        ("acme/small", "0-200k", 5, key),
    ]
    [bucket] = reader.get(USAGE, **window, **{"models[]": "acme/small"})["data"]
    assert [row["uncached_input_tokens"] for row in bucket["results"]] == [5]
    [bucket] = reader.get(USAGE, **window, **{"api_key_ids[]": "apikey_1" + "0" * 12})["data"]
    assert bucket["results"] == []


@pytest.mark.parametrize(("width", "count", "limit"), [("1m", 1440, 1440), ("1h", 24, 24), ("1d", 1, 7)])
def test_buckets_of_any_width_hold_all_usage_of_a_day(reader: Reader, width: str, count: int, limit: int) -> None:
    window = {"starting_at": "2026-09-02T00:00:00Z", "ending_at": "2026-09-03T00:00:00Z"}
    report = reader.get(USAGE, **window, bucket_width=width, limit=limit)
    assert len(report["data"]) == count
    assert not report["has_more"]
    assert sum(row["output_tokens"] for bucket in report["data"] for row in bucket["results"]) == 21


def test_pages_follow_each_other_without_a_gap(reader: Reader) -> None:
    query = {"starting_at": "2026-09-01T00:00:00Z", "ending_at": "2026-09-06T00:00:00Z", "limit": 2}
    starts, page = [], None
    while True:
        report = reader.get(USAGE, **query, **({"page": page} if page else {}))
        starts += [bucket["starting_at"] for bucket in report["data"]]
        page = report["next_page"]
        assert report["has_more"] is (page is not None)
        if page is None:
            break
    assert starts == [f"2026-09-0{day}T00:00:00Z" for day in range(1, 6)]


def test_cost_is_what_was_charged_in_cents(reader: Reader) -> None:
    window = {"starting_at": "2026-09-02T00:00:00Z", "ending_at": "2026-09-03T00:00:00Z"}
    charged = sum(event.cost_nanos for event in reader.customer.events[:3])
    [bucket] = reader.get(COST, **window)["data"]
    [row] = bucket["results"]
    assert row["amount"] == f"{charged / 10**7:.7f}".rstrip("0")
    assert (row["currency"], row["model"], row["description"]) == ("USD", None, None)
    [bucket] = reader.get(COST, **window, **{"group_by[]": "description"})["data"]
    amounts = {(row["model"], row["token_type"], row["context_window"]): row["amount"] for row in bucket["results"]}
    assert amounts["acme/large", "uncached_input_tokens", "0-200k"] == "0.03"
    assert amounts["acme/large", "cache_creation.ephemeral_5m_input_tokens", "0-200k"] == "0.001125"
    assert sum(round(float(amount) * 10**7) for amount in amounts.values()) == charged
    assert any("minimum charges" in row["description"] for row in bucket["results"])


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"starting_at": "yesterday"},
        {"starting_at": "2026-09-02", "bucket_width": "2d"},
        {"starting_at": "2026-09-02", "limit": "32"},
        {"starting_at": "2026-09-02", "limit": "0"},
        {"starting_at": "2026-09-02", "limit": "x"},
        {"starting_at": "2026-09-02", "limit": ""},
        {"starting_at": "2026-09-02", "ending_at": ""},
        {"starting_at": ""},
        {"starting_at": "2026-09-02", "workspace_ids[]": "x"},
        {"starting_at": "2026-09-02", "ending_at": "2026-09-01"},
        {"starting_at": "2026-09-02", "group_by[]": "name"},
        {"starting_at": "2026-09-02", "api_key_ids[]": "x"},
        {"starting_at": "2026-09-02", "page": "page_!!"},
        {"starting_at": "2026-09-02", "page": "page_MjAyNg=="},
        {"starting_at": "9999-01-01"},
    ],
)
def test_what_makes_no_sense_is_told(reader: Reader, query: dict[str, str]) -> None:
    body = reader.get(USAGE, **query)
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", ["models[]", "context_window[]", "group_by[]", "page"])
def test_a_zero_byte_is_the_clients_fault(reader: Reader, name: str) -> None:
    """Postgres has none in a text."""
    for path in (USAGE, COST):
        error = reader.get(path, **{"starting_at": "2026-09-02", name: "a\x00b"})["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_parameters")
        assert error["message"].startswith(name)


def test_only_management_keys_read_reports_and_only_of_their_organization(reader: Reader) -> None:
    _, ordinary = create_key(reader.customer.organization, name="Backend", created_by=None)
    window = {"starting_at": "2026-09-02T00:00:00Z"}
    answer = Client().get(USAGE, window, headers={"x-api-key": ordinary})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "management_key_required")
    assert Client().get(USAGE, window).status_code == 401
    stranger = Reader(Customer())
    report = stranger.get(USAGE, **window, limit=31, **{"api_key_ids[]": f"apikey_{reader.customer.key.pk}"})
    assert all(bucket["results"] == [] for bucket in report["data"])
    revoke_key(reader.key, revoked_by=None)
    assert Client().get(USAGE, window, headers={"x-api-key": reader.secret}).status_code == 401


def test_a_management_key_calls_no_model(reader: Reader) -> None:
    """The request path does not know it: no hold, no model, no budget can be reached with it."""
    _, ordinary = create_key(reader.customer.organization, name="Backend", created_by=None)
    digests = [hash_key(ordinary), hash_key(reader.secret)]
    found = _find_keys(digests)
    assert [isinstance(found[digest], KeyIdentity) for digest in digests] == [True, False]


def test_the_addresses_are_split() -> None:
    assert not is_for_gateway(USAGE)
    assert not is_for_gateway(COST)
    for path in ("/v1/messages", "/v1/organizations", "/v1/models", "//v1/organizations/x"):
        assert is_for_gateway(path)


def test_sold_usage_is_left_as_it_was(reader: Reader) -> None:
    assert ApiKey.objects.filter(is_management=True).count() == 1
    assert run_checks(CHECKS).breaks == []
