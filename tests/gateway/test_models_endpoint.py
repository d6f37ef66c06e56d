"""GET /v1/models and /v1/models/{id}: what is sold, page by page, to whoever has a key."""

import itertools
from typing import Any

import pytest

from billing.models import LanguageModel, Upstream
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_error
from tests.support.live_stack import HTTP, MODEL, LiveStack, Tenant, body

FIELDS = {"type", "id", "display_name", "created_at", "aliases", "max_output_tokens", "capabilities", "prices"}


def list_models(stack: LiveStack, tenant: Tenant, query: str = "") -> dict[str, Any]:
    response = stack.get(tenant, "/v1/models" + query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert set(answer) == {"data", "has_more", "first_id", "last_id"}
    return answer


def ids_of(page: dict[str, Any]) -> list[str]:
    return [model["id"] for model in page["data"]]


def test_all_on_one_page(stack: LiveStack, alice: Tenant) -> None:
    page = list_models(stack, alice, "?limit=1000")
    ids = ids_of(page)
    assert MODEL in ids
    assert len(set(ids)) == len(ids)
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[-1], False)
    dates = [model["created_at"] for model in page["data"]]
    assert dates == sorted(dates, reverse=True)
    for model in page["data"]:
        assert model["type"] == "model"
        assert set(model) >= FIELDS


def test_one_model_by_id_and_by_alias(stack: LiveStack, alice: Tenant) -> None:
    model = stack.get(alice, f"/v1/models/{MODEL}").json()
    assert model["id"] == MODEL
    assert (model["prices"]["input"], model["prices"]["output"]) == ("3.00", "15.00")
    assert all(isinstance(price, str) for price in model["prices"].values() if price is not None)
    [listed] = [each for each in list_models(stack, alice, "?limit=1000")["data"] if each["id"] == MODEL]
    assert listed == model
    for alias in model["aliases"]:
        assert stack.get(alice, f"/v1/models/{alias}").json() == model
    assert stack.get(alice, "/v1/models/" + MODEL.replace("/", "%2F")).json() == model


@pytest.mark.parametrize("name", ["none", "anthropic/none", "anthropic/", "a%00b", "%ff", "..%2f..%2fetc", "x" * 3_000])
def test_no_such_model(stack: LiveStack, alice: Tenant, name: str) -> None:
    assert_error(stack.get(alice, f"/v1/models/{name}"), 404, "model_not_found")


def test_pages_forward_and_backward_give_every_model_once(stack: LiveStack, alice: Tenant) -> None:
    everything = ids_of(list_models(stack, alice, "?limit=1000"))
    for limit in (1, 3, len(everything), len(everything) + 1):
        forward: list[str] = []
        page = list_models(stack, alice, f"?limit={limit}")
        forward += ids_of(page)
        while page["has_more"]:
            page = list_models(stack, alice, f"?limit={limit}&after_id={page['last_id']}")
            assert page["data"]
            forward += ids_of(page)
        assert forward == everything
        backward = [everything[-1]]
        page = list_models(stack, alice, f"?limit={limit}&before_id={everything[-1]}")
        backward = ids_of(page) + backward
        while page["has_more"]:
            page = list_models(stack, alice, f"?limit={limit}&before_id={page['first_id']}")
            backward = ids_of(page) + backward
        assert backward == everything
    last = list_models(stack, alice, f"?after_id={everything[-1]}")
    assert (last["data"], last["has_more"], last["first_id"], last["last_id"]) == ([], False, None, None)


def test_every_combination_of_limit_and_cursors(stack: LiveStack, alice: Tenant) -> None:
    """Both cursors together bound the list on both sides; a page is at the side of `after_id`, unless `before_id` is
    there.
    """
    everything = ids_of(list_models(stack, alice, "?limit=1000"))
    places = (None, 0, 1, 3, len(everything) - 1)
    for limit, after, before in itertools.product((1, 2, len(everything)), places, places):
        query = f"?limit={limit}"
        query += f"&after_id={everything[after]}" if after is not None else ""
        query += f"&before_id={everything[before]}" if before is not None else ""
        page = list_models(stack, alice, query)
        between = everything[0 if after is None else after + 1 : before]
        assert ids_of(page) == (between[:limit] if before is None else between[-limit:]), query
        assert page["has_more"] == (len(between) > limit), query
        ends = (ids_of(page)[0], ids_of(page)[-1]) if page["data"] else (None, None)
        assert (page["first_id"], page["last_id"]) == ends


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "1.5", "", "%20", "\u0663", "1e2", "9" * 5_000])
def test_limits_that_are_none(stack: LiveStack, alice: Tenant, limit: str) -> None:
    response = HTTP.get(f"{stack.base_url}/v1/models?limit={limit}", headers=alice.headers)
    assert_error(response, 400, "invalid_limit")


@pytest.mark.parametrize("query", ["after_id=none", "before_id=none", "after_id=%00", "after_id=%ff"])
def test_cursors_that_are_none(stack: LiveStack, alice: Tenant, query: str) -> None:
    assert_error(stack.get(alice, "/v1/models?" + query), 400, "invalid_cursor")


def test_a_model_that_is_no_longer_sold(stack: LiveStack, alice: Tenant) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url])
    assert stack.post(alice, model=sold.model_id).status_code == 200
    LanguageModel.objects.filter(model_id=sold.model_id).update(is_enabled=False)
    stack.wait_until(lambda: stack.get(alice, f"/v1/models/{sold.model_id}").status_code == 404, "the model is gone")
    assert sold.model_id not in ids_of(list_models(stack, alice, "?limit=1000"))
    assert_error(stack.post(alice, model=sold.model_id), 404, "model_not_found")


def test_a_model_whose_last_upstream_is_disabled_is_not_unknown(stack: LiveStack, alice: Tenant) -> None:
    """A client that gets 404 gives the model up; what an operator has disabled comes back."""
    sold = sell_catalog_model(stack, alice, [stack.base_url])
    upstream = Upstream.objects.filter(name__in=sold.upstreams)
    upstream.update(is_enabled=False)
    stack.wait_until(lambda: stack.post(alice, model=sold.model_id).status_code != 200, "nobody serves it")
    question = {name: value for name, value in body(model=sold.model_id).items() if name != "max_tokens"}
    for answer in (
        stack.post(alice, model=sold.model_id),
        HTTP.post(f"{stack.base_url}/v1/messages/count_tokens", headers=alice.headers, json=question),
        stack.get(alice, f"/v1/models/{sold.model_id}"),
    ):
        assert_error(answer, 503, "no_route")
        assert int(answer.headers["retry-after"]) > 0
    assert sold.model_id not in ids_of(list_models(stack, alice, "?limit=1000"))
    upstream.update(is_enabled=True)
    stack.wait_until(lambda: stack.post(alice, model=sold.model_id).status_code == 200, "it is served again")


def test_the_list_is_not_public(stack: LiveStack) -> None:
    for path in ("/v1/models", f"/v1/models/{MODEL}"):
        assert_error(HTTP.get(stack.base_url + path), 401, "missing_api_key")


def test_the_list_costs_nothing_and_eats_no_request_limit(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0", key={"requests_per_minute": 1})
    for _ in range(5):
        assert stack.get(poor, "/v1/models").status_code == 200
    assert_error(stack.post(poor), 402, "insufficient_balance")
