"""The embedded Redis: it keeps what it acknowledged, comes back after kill -9, and lets nobody in unasked."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from crossmodel_site.embedded import RedisServer, ServerError, find_free_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


def test_keeps_every_acknowledged_write_and_evicts_nothing(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        wanted = {"appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction"}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted


def test_comes_back_on_the_same_address_after_kill_minus_nine(server: RedisServer) -> None:
    url = server.url
    for number in range(3):
        with redis.Redis.from_url(url) as client:
            client.rpush("seen", number)
        server.kill()
        server.start()
    with redis.Redis.from_url(url) as client:
        assert client.lrange("seen", 0, -1) == [b"0", b"1", b"2"]


def test_a_log_cut_short_by_a_crash_does_not_hinder_it(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("first", "1")
        client.set("second", "2")
    server.kill()
    log = next(path for path in server.folder.rglob("*.aof") if path.stat().st_size)
    log.write_bytes(log.read_bytes()[:-3])
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert (client.get("first"), client.get("second")) == (b"1", None)


def test_lets_nobody_in_without_its_password(server: RedisServer) -> None:
    with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    assert server.folder.stat().st_mode & 0o777 == 0o700
    assert (server.folder / "redis.conf").stat().st_mode & 0o777 == 0o600


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        port = find_free_port()
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(ServerError, match=f"Redis cannot listen: port {port} is taken"):
            RedisServer(tmp_path / "redis", port=port).start()
