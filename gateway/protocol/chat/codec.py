"""The codec for upstreams that speak OpenAI's Chat Completions. Pure."""

from gateway.protocol.chat.request import render_chat_body, tool_names
from gateway.protocol.chat.response import decode_chat_reply
from gateway.protocol.chat.stream import ChatStreamDecoder
from gateway.protocol.codec import (
    DecodedMessage,
    ReplyIdentity,
    RouteTarget,
    StreamDecoder,
    UpstreamCall,
    credential_headers,
)
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.messages.request import MessagesRequest
from gateway.protocol.profile import BEARER, UpstreamProfile
from gateway.protocol.stream_as_whole import gather_stream, is_streamed

# The base URL of such an upstream holds its version: https://api.openai.com/v1, https://openrouter.ai/api/v1.
CHAT_PATH = "/chat/completions"
MODELS_PATH = "/models"
_NO_COUNT = "Chat Completions has no endpoint that counts tokens"


class ChatCodec:
    """See codec.UpstreamCodec."""

    def render_request(self, request: MessagesRequest, target: RouteTarget) -> UpstreamCall:
        return UpstreamCall(target.profile.path or CHAT_PATH, target.headers(), render_chat_body(request, target))

    def decode_response(
        self, request: MessagesRequest, target: RouteTarget, body: bytes, identity: ReplyIdentity
    ) -> DecodedMessage:
        if is_streamed(body):
            return gather_stream(self.stream_decoder(request, target, identity), body)
        return decode_chat_reply(
            body,
            identity,
            names=tool_names(request, target.profile),
            profile=target.profile,
            stop_sequences=request.body.get("stop_sequences") or [],
        )

    def stream_decoder(self, request: MessagesRequest, target: RouteTarget, identity: ReplyIdentity) -> StreamDecoder:
        return ChatStreamDecoder(
            identity,
            names=tool_names(request, target.profile),
            profile=target.profile,
            stop_sequences=request.body.get("stop_sequences") or [],
        )

    def credential_headers(self, credential: str, profile: UpstreamProfile) -> dict[str, str]:
        return credential_headers(credential, profile.auth or BEARER)

    def render_credential_check(self, profile: UpstreamProfile) -> UpstreamCall:
        return UpstreamCall(profile.credential_check_path or MODELS_PATH, dict(profile.headers), b"")

    def serves_count_tokens(self, profile: UpstreamProfile) -> bool:
        return False

    def render_count_tokens(self, request: MessagesRequest, target: RouteTarget) -> UpstreamCall:
        raise UpstreamProtocolError(_NO_COUNT)

    def decode_count_tokens(self, body: bytes) -> int:
        raise UpstreamProtocolError(_NO_COUNT)
