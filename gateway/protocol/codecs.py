"""The codec of each protocol that an upstream can have in the catalog. Pure."""

from collections.abc import Mapping
from types import MappingProxyType

from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import UpstreamCodec
from gateway.protocol.messages.codec import MessagesCodec

# Both are without state: one object serves all requests.
CODECS: Mapping[str, UpstreamCodec] = MappingProxyType({"messages": MessagesCodec(), "chat_completions": ChatCodec()})
