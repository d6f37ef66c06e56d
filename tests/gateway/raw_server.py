"""A server that says any bytes, on a real socket and in the event loop of the test: what the upstream client meets."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from gateway.http.client import UpstreamClient

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKED = CHUNKED_HEAD + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\ntrailer: 1\r\n\r\n"
PATIENT_SECONDS = 10.0
Writer = asyncio.StreamWriter
Answer = Callable[["Conversation"], Awaitable[None]]


class Conversation:
    """One connection of the server: what it was asked, and how to answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self.body = b""

    async def read_request(self) -> None:
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        [length] = [
            int(line.partition(b":")[2])
            for line in self.head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        self.body = await self.reader.readexactly(length)

    async def say(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def wait_for_close(self) -> None:
        """Return once the client has closed, in whichever way."""
        with suppress(ConnectionError):
            assert await self.reader.read() == b""


class Server:
    """Answers each request with `answer`; `conversations` are its connections, `requests` all heads that came."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.conversations: list[Conversation] = []
        self.requests: list[tuple[bytes, bytes]] = []
        self.was_asked = asyncio.Event()
        self.ended = asyncio.Queue[str]()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        conversation = Conversation(reader, writer)
        self.conversations.append(conversation)
        try:
            while True:
                await conversation.read_request()
                self.requests.append((conversation.head, conversation.body))
                self.was_asked.set()
                await self.answer(conversation)
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            pass  # RuntimeError is what uvloop raises for writing to a connection that has just been closed.
        finally:
            self.ended.put_nowait("connection")
            writer.close()


@asynccontextmanager
async def serving(answer: Answer | bytes, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server that answers every request by `answer`, or with these bytes."""

    async def say(conversation: Conversation) -> None:
        assert isinstance(answer, bytes)
        await conversation.say(answer)

    server = Server(say if isinstance(answer, bytes) else answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    server.url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/messages"
    try:
        yield server
    finally:
        listener.close()
        for conversation in server.conversations:
            conversation.writer.close()


async def fetch(client: UpstreamClient, url: str, *, timeout_seconds: float = PATIENT_SECONDS) -> bytes:
    response = await client.post(url, headers={"x-a": "1"}, body=b"{}", timeout_seconds=timeout_seconds)
    try:
        return await response.read(timeout_seconds=timeout_seconds, total_seconds=PATIENT_SECONDS)
    finally:
        await response.aclose()
