"""The server's side of HTTP/1.1: uvicorn's on httptools, with our own words for what is no HTTP, and a bound on heads.

Named to uvicorn as `--http gateway.http_protocol:HttpProtocol`. What a request says is never judged here, only whether
it is one: the application sees nothing of what is refused.
"""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from billing.request_id import REQUEST_PREFIX, make_request_id
from gateway.errors import GatewayError, render_error

MAX_HEAD_BYTES = 64 * 1024  # Request line and headers; what a single read of the socket brings more is let pass.


class HttpProtocol(HttpToolsProtocol):
    """Answers in the documented form of an error, with a request id, and closes the connection."""

    _is_in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                limit = MAX_HEAD_BYTES // 1024
                self._refuse(GatewayError(431, "headers_too_large", f"The headers are larger than {limit} KiB."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(GatewayError(400, "invalid_http", "This is not a valid HTTP/1.1 request."))

    def _refuse(self, error: GatewayError) -> None:
        request_id = REQUEST_PREFIX + make_request_id().hex
        body = render_error(error.status, error.code, error.message, request_id)
        lines = [
            *(name + b": " + value for name, value in self.server_state.default_headers),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"request-id: " + request_id.encode(),
            b"connection: close",
        ]
        self.transport.write(STATUS_LINE[error.status] + b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()
