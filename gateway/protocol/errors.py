"""What can be wrong with bytes on the wire: the client's fault, or the upstream's."""


class ProtocolError(Exception):
    """The root of every error of this package."""


class InvalidRequestError(ProtocolError):
    """The client's request cannot be served as it stands: a 400 with `message` in Anthropic's wording.

    `code` is our stable machine word; `param` is the path of the field at fault, such as `messages.0.role`.
    """

    def __init__(self, message: str, *, code: str = "invalid_request", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


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


class SseTooLargeError(UpstreamProtocolError):
    """One event of a stream passed the bound."""


class UpstreamStreamError(UpstreamProtocolError):
    """The upstream itself ended the stream with an error."""
