"""What the decoders of both protocols do around the events of a stream. Pure."""

from gateway.protocol.codec import NOTHING, RelayStep, StreamEnd
from gateway.protocol.errors import NoObjectError, UpstreamProtocolError
from gateway.protocol.sse import SseEvent, SseParser
from gateway.protocol.usage_reading import UsageReading

ERROR = "error"


class StreamFrame:
    """The part of codec.StreamDecoder that does not depend on the protocol.

    Once over it stays so, and it never raises. A decoder of a protocol takes events one by one and adds what goes
    to the client to `_out`. What is wrong it raises as UpstreamProtocolError: then what it had added is forwarded, and
    the failure said.
    """

    def __init__(self) -> None:
        self._parser = SseParser()
        self._out: list[bytes] = []
        self._is_over = False
        self._has_started = False

    @property
    def has_started(self) -> bool:
        return self._has_started

    @property
    def is_said(self) -> bool:
        return False

    def reading(self) -> UsageReading:
        raise NotImplementedError

    def feed(self, chunk: bytes) -> RelayStep:
        if self._is_over:
            return NOTHING
        try:
            return self._step(self._take_bytes(chunk))
        except UpstreamProtocolError as error:
            return self._fail(error)

    def flush(self) -> RelayStep:
        if self._is_over:
            return NOTHING
        try:
            return self._step(self._take_events(self._parser.flush()) or self._take_clean_end())
        except UpstreamProtocolError as error:
            return self._fail(error)

    def _take_bytes(self, chunk: bytes) -> StreamEnd | None:
        """Take bytes as they came; return the end of the reply where it is complete with them."""
        return self._take_events(self._parser.feed(chunk))

    def _take_event(self, event: SseEvent) -> StreamEnd | None:
        """Take one event; return the end of the reply where it is complete with it."""
        raise NotImplementedError

    def _take_clean_end(self) -> StreamEnd:
        """Return the end of a reply whose upstream closed cleanly without having said that it is complete."""
        raise NotImplementedError

    def _take_events(self, events: list[SseEvent]) -> StreamEnd | None:
        for event in events:
            if not event.data and event.event != ERROR:
                continue  # Servers send it to keep a connection alive; of an error, its name says enough.
            try:
                end = self._take_event(event)
            except NoObjectError:
                continue  # `null`, say: it carries nothing.
            if end is not None:
                return end
        return None

    def _step(self, end: StreamEnd | None) -> RelayStep:
        if end is None:
            return RelayStep(self._take_out()) if self._out else NOTHING
        self._is_over = True
        return RelayStep(self._take_out(), end=end)

    def _fail(self, error: UpstreamProtocolError) -> RelayStep:
        self._is_over = True
        return RelayStep(self._take_out(), failure=error)

    def _take_out(self) -> bytes:
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return out
