"""What can be wrong with bytes on the wire: the client's fault, or the upstream's."""

from collections.abc import Mapping
from typing import Any

from gateway.protocol.usage_reading import UsageReading

UNUSABLE_CODE = "reply_unusable"
UNUSABLE_TEXT = "The model wrote a reply that cannot be delivered, such as a tool call with broken arguments."


class ProtocolError(Exception):
    """The root of every error of this package."""


class InvalidRequestError(ProtocolError):
    """The client's request cannot be served as it stands: a 400 with `message` in Anthropic's words.

    `code` is our stable machine word; `param` is the path of the field at fault, such as `messages.0.role`; `details`
    are Anthropic's `error.details`, by whose `error_code` its SDKs heal.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "invalid_request",
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.details = details


class InvalidProfileError(ProtocolError):
    """A provider profile in the catalog has a setting that means nothing; the text names it."""


class UpstreamProtocolError(ProtocolError):
    """The upstream broke its protocol, or said that it failed. The text is for logs, never for clients.

    `error_type`, `code` and `client_message` are what the client may see of it. `is_upstream_fault` is False where a
    client can bring it about by what it asks for: that must not open the breaker for everybody else.
    """

    def __init__(
        self,
        reason: str,
        *,
        error_type: str = "api_error",
        code: str = "upstream_protocol_error",
        client_message: str = "The model service returned an abnormal response.",
        is_upstream_fault: bool = True,
    ) -> None:
        super().__init__(reason)
        self.is_upstream_fault = is_upstream_fault
        self.reason = reason
        self.error_type = error_type
        self.code = code
        self.client_message = client_message

    @property
    def log_text(self) -> str:
        """What a log line may say of it: our own words."""
        return self.reason


class NoObjectError(UpstreamProtocolError):
    """JSON that is no object: as an event of a stream it says nothing, as a whole reply it is none."""


class TooMuchStructureError(UpstreamProtocolError):
    """The upstream sent JSON with more structure, or levels, than we read, as a model can be made to write it.

    `value` is what was read all the same; empty where nothing could be.
    """

    def __init__(self, reason: str, value: Mapping[str, Any]) -> None:
        super().__init__(reason, code=UNUSABLE_CODE, client_message=UNUSABLE_TEXT, is_upstream_fault=False)
        self.value = value


class UnusableReplyError(UpstreamProtocolError):
    """The model wrote what a message cannot carry. Its upstream did its work and charges: `reading` is to be billed."""

    def __init__(self, reason: str, reading: UsageReading) -> None:
        super().__init__(reason, code=UNUSABLE_CODE, client_message=UNUSABLE_TEXT, is_upstream_fault=False)
        self.reading = reading


class SseTooLargeError(UpstreamProtocolError):
    """One event of a stream passed the bound."""


class UpstreamStreamError(UpstreamProtocolError):
    """The upstream itself ended the stream with an error. `reason` has its words, which may repeat the prompt."""

    @property
    def log_text(self) -> str:
        return f"it ended the stream with an error ({self.code})"
