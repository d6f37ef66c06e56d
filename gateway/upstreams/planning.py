"""Which calls could serve a request: its routes in order, each with the call as its upstream takes it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from billing.catalog.snapshot import UsableRoute
from gateway.errors import invalid_request
from gateway.protocol.codec import RouteTarget, UpstreamCall, UpstreamCodec
from gateway.protocol.codecs import CODECS
from gateway.protocol.errors import InvalidProfileError, InvalidRequestError
from gateway.protocol.messages.request import MessagesRequest
from gateway.protocol.profile import UpstreamProfile, read_profile
from gateway.upstreams.routing import order_routes

MAX_KNOWN_PROFILES = 10_000

logger = logging.getLogger(__name__)

# By route: the text that the catalog had, and what it says.
_profiles: dict[int, tuple[Mapping[str, object], UpstreamProfile]] = {}


class PlannedCall(NamedTuple):
    """One route, ready to be called."""

    route: UsableRoute
    codec: UpstreamCodec
    target: RouteTarget
    call: UpstreamCall


def plan_calls(
    request: MessagesRequest, routes: Sequence[UsableRoute], *, client_version: str, client_beta: str
) -> list[PlannedCall]:
    """Return the calls that can be made, in order. Raises GatewayError 400 when no route can be asked this."""
    return _plan(request, routes, client_version, client_beta, _render_request)


def plan_counts(
    request: MessagesRequest, routes: Sequence[UsableRoute], *, client_version: str, client_beta: str
) -> list[PlannedCall]:
    """Return the calls that can count the request's tokens, in order: none where no upstream can. Raises the same."""
    return _plan(request, routes, client_version, client_beta, _render_count)


def _render_request(codec: UpstreamCodec, request: MessagesRequest, target: RouteTarget) -> UpstreamCall:
    return codec.render_request(request, target)


def _render_count(codec: UpstreamCodec, request: MessagesRequest, target: RouteTarget) -> UpstreamCall | None:
    return codec.render_count_tokens(request, target) if codec.serves_count_tokens(target.profile) else None


def _plan(
    request: MessagesRequest,
    routes: Sequence[UsableRoute],
    client_version: str,
    client_beta: str,
    render: Callable[[UpstreamCodec, MessagesRequest, RouteTarget], UpstreamCall | None],
) -> list[PlannedCall]:
    ordered = order_routes(routes, request.conversation_fingerprint()) if len(routes) > 1 else routes
    planned: list[PlannedCall] = []
    refusal: InvalidRequestError | None = None
    for route in ordered:
        codec = CODECS[route.protocol]
        try:
            target = RouteTarget(route.upstream_model, profile_of(route), client_version, client_beta)
            same = (call for call in planned if (call.codec, call.target) == (codec, target))
            known = next(same, None)
            call = known.call if known else render(codec, request, target)
            if call is not None:
                planned.append(PlannedCall(route, codec, target, call))
        except InvalidRequestError as error:
            refusal = refusal or error
        except InvalidProfileError as error:
            logger.error("Upstream %s cannot be called: %s", route.upstream_name, error)
    if not planned and refusal is not None:
        raise invalid_request(refusal)
    return planned


def profile_of(route: UsableRoute) -> UpstreamProfile:
    """Return the route's profile, read once for as long as the catalog stays the same. Raises InvalidProfileError."""
    known = _profiles.get(route.route_id)
    if known is not None and known[0] is route.profile:
        return known[1]
    profile = read_profile(route.profile)
    if len(_profiles) >= MAX_KNOWN_PROFILES:
        _profiles.clear()
    _profiles[route.route_id] = (route.profile, profile)
    return profile
