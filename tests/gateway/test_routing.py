"""The order of routes: by position, by weight among equals, and always the same one for a conversation."""

from collections import Counter
from collections.abc import Sequence

import pytest

from billing.catalog.snapshot import UsableRoute
from gateway.upstreams.routing import order_routes

CONVERSATIONS = [f"conversation-{number}" for number in range(4_000)]


def route(route_id: int, *, position: int = 0, weight: int = 1) -> UsableRoute:
    return UsableRoute(
        route_id=route_id,
        upstream_name=f"upstream-{route_id}",
        protocol="messages",
        base_url="http://127.0.0.1:1",
        credential="",
        bills_when_cancelled=False,
        is_sandbox=False,
        profile={},
        upstream_model="up",
        position=position,
        weight=weight,
    )


def first_choices(routes: Sequence[UsableRoute]) -> dict[str, int]:
    return {conversation: order_routes(routes, conversation)[0].route_id for conversation in CONVERSATIONS}


def test_a_lower_position_comes_first_whatever_the_weights() -> None:
    routes = [route(1, position=2, weight=1_000), route(2, position=1), route(3, position=9), route(4, position=1)]
    for conversation in CONVERSATIONS[:50]:
        order = [each.route_id for each in order_routes(routes, conversation)]
        assert (set(order[:2]), order[2:]) == ({2, 4}, [1, 3])


def test_a_conversation_keeps_its_route_however_the_routes_are_listed() -> None:
    routes = [route(1), route(2), route(3)]
    assert first_choices(routes) == first_choices(routes[::-1])


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 2, 7)])
def test_equal_positions_share_by_weight(weights: tuple[int, ...]) -> None:
    routes = [route(number, weight=weight) for number, weight in enumerate(weights)]
    chosen = Counter(first_choices(routes).values())
    for number, weight in enumerate(weights):
        assert chosen[number] / len(CONVERSATIONS) == pytest.approx(weight / sum(weights), abs=0.03)


def test_a_new_route_takes_its_own_share_and_moves_nobody_else() -> None:
    before, after = first_choices([route(1), route(2)]), first_choices([route(1), route(2), route(3)])
    assert {after[name] for name in CONVERSATIONS if after[name] != before[name]} == {3}
    assert Counter(after.values())[3] / len(CONVERSATIONS) == pytest.approx(1 / 3, abs=0.03)


def test_a_route_without_weight_is_the_last_resort() -> None:
    routes = [route(1, weight=0), route(2), route(3)]
    assert {order_routes(routes, name)[-1].route_id for name in CONVERSATIONS[:50]} == {1}
