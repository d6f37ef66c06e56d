"""The codec for upstreams that speak the Messages protocol. Pure."""

from gateway.protocol.codec import (
    DecodedMessage,
    ReplyIdentity,
    RouteTarget,
    StreamDecoder,
    UpstreamCall,
    check_thinking_budget,
    credential_headers,
    refuse_fields,
)
from gateway.protocol.messages.guarded_fields import UNSENT_FIELDS, passing_betas
from gateway.protocol.messages.request import MessagesRequest, render_upstream_body
from gateway.protocol.messages.response import decode_message, decode_token_count
from gateway.protocol.messages.stream import MessagesStreamDecoder
from gateway.protocol.profile import AUTO, X_API_KEY, UpstreamProfile
from gateway.protocol.stream_as_whole import gather_stream, is_streamed

MESSAGES_PATH = "/v1/messages"
COUNT_TOKENS_PATH = "/v1/messages/count_tokens"
MODELS_PATH = "/v1/models"
# Under the later version Anthropic refuses the sampling fields, which our reference supports.
VERSION_WITH_SAMPLING = "2023-06-01"
VERSION_WITHOUT_SAMPLING = "2026-10-21"
SAMPLING_FIELDS = ("temperature", "top_p", "top_k")


class MessagesCodec:
    """See codec.UpstreamCodec."""

    def render_request(self, request: MessagesRequest, target: RouteTarget) -> UpstreamCall:
        return self._render(request, target, target.profile.path or MESSAGES_PATH)

    def decode_response(
        self, request: MessagesRequest, target: RouteTarget, body: bytes, identity: ReplyIdentity
    ) -> DecodedMessage:
        if is_streamed(body):
            return gather_stream(self.stream_decoder(request, target, identity), body)
        return decode_message(body, identity)

    def stream_decoder(self, request: MessagesRequest, target: RouteTarget, identity: ReplyIdentity) -> StreamDecoder:
        return MessagesStreamDecoder(identity)

    def credential_headers(self, credential: str, profile: UpstreamProfile) -> dict[str, str]:
        return credential_headers(credential, profile.auth or X_API_KEY)

    def render_credential_check(self, profile: UpstreamProfile) -> UpstreamCall:
        headers = {"anthropic-version": VERSION_WITH_SAMPLING, **profile.headers}
        return UpstreamCall(profile.credential_check_path or MODELS_PATH, headers, b"")

    def serves_count_tokens(self, profile: UpstreamProfile) -> bool:
        return profile.count_tokens

    def render_count_tokens(self, request: MessagesRequest, target: RouteTarget) -> UpstreamCall:
        return self._render(request, target, COUNT_TOKENS_PATH)

    def decode_count_tokens(self, body: bytes) -> int:
        return decode_token_count(body)

    def _render(self, request: MessagesRequest, target: RouteTarget, path: str) -> UpstreamCall:
        refuse_fields(request, target.profile)
        check_thinking_budget(request, target.client_beta)
        headers = target.headers()
        headers["anthropic-version"] = choose_version(request, target)
        if betas := passing_betas(target.client_beta):
            headers["anthropic-beta"] = betas
        drop_fields = (*target.profile.drop_fields, *UNSENT_FIELDS)
        return UpstreamCall(path, headers, render_upstream_body(request, target.upstream_model, drop_fields))


def choose_version(request: MessagesRequest, target: RouteTarget) -> str:
    """Return the `anthropic-version` for the upstream: the profile's, or with "auto" the one that keeps it working.

    That is the client's later version as long as the request has no sampling field, and the earlier one otherwise.
    """
    if target.profile.api_version != AUTO:
        return target.profile.api_version
    if target.client_version != VERSION_WITHOUT_SAMPLING:
        return VERSION_WITH_SAMPLING
    has_sampling = any(request.body.get(name) is not None for name in SAMPLING_FIELDS)
    return VERSION_WITH_SAMPLING if has_sampling else VERSION_WITHOUT_SAMPLING
