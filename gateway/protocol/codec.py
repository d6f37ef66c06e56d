"""One interface to the two protocols of upstreams, so that the relay treats them alike. Pure.

A codec renders a checked request for an upstream and decodes what comes back into what the client gets:

    call = codec.render_request(request, target)
    whole:    decoded = codec.decode_response(request, target, body, identity)
              ... close the hold ...; send decoded.encode()
    streamed: decoder = codec.stream_decoder(request, target, identity)
              for chunk: step = decoder.feed(chunk); at the upstream's clean end: step = decoder.flush()
              send step.forward; then look at step.failure (end with `event: error`, or fail over while nothing was
              forwarded) and at step.end (close the hold, then send step.end.encode(): the last events,
              held back until now).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import orjson

from billing.pricing.cost import Usage
from gateway.protocol.errors import InvalidRequestError, UpstreamProtocolError
from gateway.protocol.json import exact as exact_json
from gateway.protocol.json.structure import MAX_EXACT_BYTES
from gateway.protocol.messages.request import MessagesRequest
from gateway.protocol.messages.usage import COUNT_FIELDS
from gateway.protocol.messages.validation import EXTRA_INPUTS_TEXT, refuse
from gateway.protocol.profile import BEARER, DEFAULT_PROFILE, NO_AUTH, UpstreamProfile
from gateway.protocol.sse import encode_event
from gateway.protocol.usage_reading import UsageReading

# What a reply of the Messages protocol says in our words; all else stays as it came.
REWRITTEN_FIELDS = ("id", "type", "model", "role", "stop_reason", "stop_sequence", "usage")
INTERLEAVED_THINKING = "interleaved-thinking"
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class ReplyIdentity(NamedTuple):
    """What the client is told instead of the upstream's own: `msg_...` and the model id that it asked for."""

    message_id: str
    model_id: str


class RouteTarget(NamedTuple):
    """Where one attempt goes, as far as the protocol is concerned."""

    upstream_model: str
    profile: UpstreamProfile = DEFAULT_PROFILE
    client_version: str = ""  # The client's `anthropic-version`.
    client_beta: str = ""  # The client's `anthropic-beta`.

    def headers(self) -> dict[str, str]:
        """Return what every call to this upstream carries, whatever its protocol."""
        return {"content-type": "application/json", **self.profile.headers}


class UpstreamCall(NamedTuple):
    """A POST to `path` under the upstream's base URL, or a GET where that is said. Headers hold no credential."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class DecodedMessage:
    """A whole reply, ready for the client."""

    message: dict[str, Any]
    reading: UsageReading
    source: bytes = b""  # What `message` was read from, where that was a message already.

    def encode(self, *, usage: Usage | None = None, extra_usage: Mapping[str, Any] | None = None) -> bytes:
        """Return the JSON body. `usage` replaces the counts when they were estimated; `extra_usage` adds fields."""
        if usage is not None or extra_usage:
            _amend_usage(self.message["usage"], usage, extra_usage)
        encoded = exact_json.encode(self.message)
        if not self.source or len(self.source) > MAX_EXACT_BYTES or not exact_json.may_be_rounded(encoded):
            return encoded
        ours = {name: self.message[name] for name in REWRITTEN_FIELDS}
        return exact_json.encode({**exact_json.decode_exactly(self.source), **ours})


@dataclass(slots=True)
class StreamEnd:
    """The last events of a complete stream: `message_delta` with all counts, and `message_stop`."""

    message_delta: dict[str, Any]

    def encode(self, *, usage: Usage | None = None, extra_usage: Mapping[str, Any] | None = None) -> bytes:
        """Return their bytes. `usage` replaces the counts when they were estimated; `extra_usage` adds fields."""
        if usage is not None or extra_usage:
            _amend_usage(self.message_delta["usage"], usage, extra_usage)
        return encode_event("message_delta", orjson.dumps(self.message_delta)) + MESSAGE_STOP


class RelayStep(NamedTuple):
    """What to do after some bytes from the upstream: send `forward` first, then act on the other two.

    At most one of `end` and `failure` is set, once in the life of a decoder; after it nothing follows.
    """

    forward: bytes
    end: StreamEnd | None = None
    failure: UpstreamProtocolError | None = None


NOTHING = RelayStep(b"")


class StreamDecoder(Protocol):
    """Turns an upstream's stream into the client's. Never raises: what is wrong comes as `failure`."""

    @property
    def has_started(self) -> bool:
        """True once something was forwarded: the route is decided."""

    @property
    def is_said(self) -> bool:
        """True once the reply is whole, and only its usage may come yet: `flush()` ends it, whatever comes instead."""

    def feed(self, chunk: bytes) -> RelayStep:
        """Take bytes as they came, cut anywhere."""

    def flush(self) -> RelayStep:
        """Say that the upstream closed cleanly. A reply that is not complete by then is a failure."""

    def reading(self) -> UsageReading:
        """Return the usage as known so far: for checkpoints, and for the end."""


class UpstreamCodec(Protocol):
    """What the relay needs to know of a protocol."""

    def render_request(self, request: MessagesRequest, target: RouteTarget) -> UpstreamCall:
        """Return the call. Raises InvalidRequestError for what this upstream cannot be asked: before admission."""

    def decode_response(
        self, request: MessagesRequest, target: RouteTarget, body: bytes, identity: ReplyIdentity
    ) -> DecodedMessage:
        """Return the reply in the body of a 200. Raises UpstreamProtocolError."""

    def stream_decoder(self, request: MessagesRequest, target: RouteTarget, identity: ReplyIdentity) -> StreamDecoder:
        """Return a decoder for the body of a 200 that is streamed."""

    def credential_headers(self, credential: str, profile: UpstreamProfile) -> dict[str, str]:
        """Return the headers that authenticate us at the upstream."""

    def render_credential_check(self, profile: UpstreamProfile) -> UpstreamCall:
        """Return a GET that carries nothing of any client and is answered with 401 or 403 where a credential is bad."""

    def serves_count_tokens(self, profile: UpstreamProfile) -> bool:
        """True when `render_count_tokens` and `decode_count_tokens` may be called."""

    def render_count_tokens(self, request: MessagesRequest, target: RouteTarget) -> UpstreamCall:
        """Return the call that counts tokens."""

    def decode_count_tokens(self, body: bytes) -> int:
        """Return the input tokens in the body of a 200. Raises UpstreamProtocolError."""


def credential_headers(credential: str, auth: str) -> dict[str, str]:
    """Return the header that carries `credential` the way that `auth` names: see profile.UpstreamProfile."""
    if not credential or auth == NO_AUTH:
        return {}
    return {"authorization": f"Bearer {credential}"} if auth == BEARER else {"x-api-key": credential}


def refuse_fields(request: MessagesRequest, profile: UpstreamProfile) -> None:
    """Refuse what the profile says must not reach the upstream; null is nothing. Raises InvalidRequestError."""
    for name in profile.refuse_fields:
        if request.body.get(name) is not None:
            refuse(name, EXTRA_INPUTS_TEXT, code="unsupported_field")


def check_thinking_budget(request: MessagesRequest, client_beta: str = "") -> None:
    """Refuse a budget that `max_tokens` leaves no room for. Raises InvalidRequestError.

    With Anthropic's beta of interleaved thinking the budget is for all requests of a turn, and may be larger. A
    count_tokens request has no `max_tokens`.
    """
    if 0 < request.max_tokens <= request.thinking_budget_tokens and INTERLEAVED_THINKING not in client_beta:
        raise InvalidRequestError("`max_tokens` must be greater than `thinking.budget_tokens`.", param="max_tokens")


def _amend_usage(shown: dict[str, Any], usage: Usage | None, extra: Mapping[str, Any] | None) -> None:
    if usage is not None:
        cache_write = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
        counts = (usage.input_tokens, usage.output_tokens, cache_write, usage.cache_read_tokens)
        shown.update(zip(COUNT_FIELDS, counts, strict=True))
    if extra:
        shown.update(extra)
