"""Connections to upstreams: how they are made, kept, used again, and when they must not be."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.http import transport
from gateway.http.client import UpstreamClient
from gateway.http.errors import UpstreamBrokenError, UpstreamError, UpstreamUnreachableError
from tests.gateway.raw_server import CHUNKED, PATIENT_SECONDS, WHOLE, fetch, serving


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(connect_seconds=PATIENT_SECONDS)
    yield client
    await client.aclose()


@pytest.mark.parametrize("rest", [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"evil", b"\x00"])
async def test_what_follows_an_answer_is_no_answer(client: UpstreamClient, rest: bytes) -> None:
    async with serving(WHOLE + rest) as server:
        assert [await fetch(client, server.url) for _ in range(2)] == [b"hello"] * 2
        assert len(server.conversations) == 2


async def test_what_is_said_unasked_is_no_answer(client: UpstreamClient) -> None:
    async with serving(WHOLE) as server:
        await fetch(client, server.url)
        await server.conversations[0].say(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        assert await server.ended.get() == "connection"
        assert await fetch(client, server.url) == b"hello"
        assert len(server.conversations) == 2


async def test_a_connection_that_the_server_closed_is_not_used(client: UpstreamClient) -> None:
    async with serving(WHOLE) as server:
        await fetch(client, server.url)
        server.conversations[0].writer.close()
        await asyncio.sleep(0.05)
        assert await fetch(client, server.url) == b"hello"


async def test_a_connection_that_breaks_in_the_very_moment_of_a_call(client: UpstreamClient) -> None:
    async with serving(WHOLE) as server:
        await fetch(client, server.url)
        [[connection]] = client._transport._idle.values()
        connection._transport.abort()  # Its end is told in the next turn of the event loop.
        with pytest.raises(UpstreamBrokenError):
            await fetch(client, server.url)
        assert await fetch(client, server.url) == b"hello"


@pytest.mark.parametrize("said", [b"connection: close\r\n", b"connection: Close, x\r\n"])
async def test_a_connection_whose_server_wants_to_close_is_closed(client: UpstreamClient, said: bytes) -> None:
    async with serving(WHOLE.replace(b"content-type", said + b"content-type")) as server:
        await fetch(client, server.url)
        assert await server.ended.get() == "connection"


async def test_an_idle_connection_is_closed(client: UpstreamClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_IDLE_SECONDS", 0.05)
    async with serving(WHOLE) as server:
        await asyncio.gather(*(fetch(client, server.url) for _ in range(2)))
        assert [await server.ended.get() for _ in range(2)] == ["connection"] * 2
        assert await fetch(client, server.url) == b"hello"


async def test_no_more_idle_connections_are_kept_than_the_bound(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_IDLE_CONNECTIONS", 1)
    async with serving(WHOLE) as server:
        responses = await asyncio.gather(
            *(client.post(server.url, headers={}, body=b"", timeout_seconds=PATIENT_SECONDS) for _ in range(3))
        )
        for response in responses:
            await response.read(timeout_seconds=PATIENT_SECONDS, total_seconds=PATIENT_SECONDS)
            await response.aclose()
            await response.aclose()  # Again does nothing.
        assert [await server.ended.get() for _ in range(2)] == ["connection"] * 2
        assert server.ended.empty()


async def test_an_answer_that_comes_before_the_whole_request_was_taken(client: UpstreamClient) -> None:
    async def refuse_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nhello")
        await writer.drain()

    listener = await asyncio.start_server(refuse_early, "127.0.0.1", 0, limit=1024)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    response = await client.post(url, headers={}, body=b"x" * 50_000_000, timeout_seconds=PATIENT_SECONDS)
    assert response.status == 413
    assert await response.read(timeout_seconds=PATIENT_SECONDS, total_seconds=PATIENT_SECONDS) == b"hello"
    await response.aclose()
    assert client._transport._idle == {}
    listener.close()


# --- connecting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://no-such-host.invalid/", "https://127.0.0.1:1/"])
async def test_where_nobody_listens(client: UpstreamClient, url: str) -> None:
    with pytest.raises(UpstreamUnreachableError):
        await fetch(client, url)


async def test_a_name_with_several_addresses(client: UpstreamClient) -> None:
    """Nobody listens at ::1, which comes first where the machine knows it."""
    async with serving(WHOLE) as server:
        assert await fetch(client, server.url.replace("127.0.0.1", "localhost")) == b"hello"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1/x", "http://[::1", "http://127.0.0.1:99999/"])
async def test_addresses_that_are_none(client: UpstreamClient, url: str) -> None:
    with pytest.raises(UpstreamError):
        await fetch(client, url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody has signed, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "upstream.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def test_a_certificate_that_nobody_vouches_for(client: UpstreamClient, server_tls: ssl.SSLContext) -> None:
    async with serving(WHOLE, tls=server_tls) as server:
        with pytest.raises(UpstreamUnreachableError, match="certificate"):
            await fetch(client, server.url)
        assert server.requests == []


async def test_a_certificate_that_is_trusted(
    certificate: Path, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    client = UpstreamClient(connect_seconds=PATIENT_SECONDS)
    async with serving(CHUNKED, tls=server_tls) as server:
        assert [await fetch(client, server.url) for _ in range(2)] == [b"hello"] * 2
        assert len(server.conversations) == 1
        with pytest.raises(UpstreamUnreachableError):  # The certificate is not one for that name.
            await fetch(client, server.url.replace("127.0.0.1", "localhost"))
        await client.aclose()
