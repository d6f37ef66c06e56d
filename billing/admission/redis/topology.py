"""Where Redis is: one server, a Cluster, or a master that Sentinels watch. Told apart by the scheme of REDIS_URL.

redis://host:port/db, rediss://..., unix://path      one server
redis+cluster://host:port[,host:port...]              a Cluster; the nodes given are where discovery starts
redis+sentinel://host:port[,host:port...]/name[/db]   the master called `name`
"""

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.sentinel import Sentinel

SINGLE, CLUSTER, SENTINEL = "single", "cluster", "sentinel"
DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
KEPT_SECONDS = 0.2

Address = tuple[str, int]


class InvalidRedisUrlError(ValueError):
    """REDIS_URL has none of the forms above; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Topology:
    kind: str
    url: str
    addresses: tuple[Address, ...] = ()
    master_name: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None


def read_topology(url: str) -> Topology:
    """Return what `url` says. Raises InvalidRedisUrlError."""
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        return Topology(kind=SINGLE, url=url)
    if scheme not in ("redis+cluster", "redis+sentinel"):
        raise InvalidRedisUrlError(f"REDIS_URL starts with {scheme!r}; see billing/admission/redis/topology.py.")
    credentials, _, location = rest.rpartition("@")
    username, _, password = credentials.partition(":")
    hosts, _, path = location.partition("/")
    default_port = DEFAULT_PORT if scheme == "redis+cluster" else DEFAULT_SENTINEL_PORT
    addresses = tuple(_read_address(host, default_port) for host in hosts.split(",") if host)
    if not addresses:
        raise InvalidRedisUrlError("REDIS_URL names no host.")
    if scheme == "redis+cluster":
        return Topology(CLUSTER, url, addresses, username=username or None, password=password or None)
    master_name, _, db = path.partition("/")
    if not master_name:
        raise InvalidRedisUrlError("REDIS_URL names no master: redis+sentinel://host:port/NAME.")
    if db and not db.isdigit():
        raise InvalidRedisUrlError(f"The database in REDIS_URL is {db!r}, not a number.")
    return Topology(SENTINEL, url, addresses, master_name, int(db or 0), username or None, password or None)


def _read_address(text: str, default_port: int) -> Address:
    parts = urlsplit("//" + text)
    try:
        return parts.hostname or "localhost", parts.port or default_port
    except ValueError:
        raise InvalidRedisUrlError(f"The port in {text!r} is not a number.") from None


def open_client(topology: Topology, *, timeout_seconds: float) -> "redis.Redis | RedisCluster":
    """Return a blocking client, for workers, commands and pages."""
    options = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "username": topology.username,
        "password": topology.password,
    }
    if topology.kind == CLUSTER:
        nodes = [ClusterNode(host, port) for host, port in topology.addresses]
        return RedisCluster(startup_nodes=nodes, **options)  # type: ignore[arg-type]  # the stubs take no mapping
    if topology.kind == SENTINEL:
        sentinel = Sentinel(list(topology.addresses), socket_timeout=timeout_seconds)
        master: redis.Redis = sentinel.master_for(topology.master_name, db=topology.db, **options)
        return master
    del options["username"], options["password"]
    return redis.Redis.from_url(topology.url, **options)


class AsyncServers:
    """Opens connections to the server that holds a shard. Addresses are asked for again after `forget()`.

    Many calls fail together when a node goes, and each asks to forget: what was learnt a moment ago is kept.
    """

    def __init__(self, topology: Topology, *, timeout_seconds: float) -> None:
        self._topology = topology
        self._timeout_seconds = timeout_seconds
        self._cluster: AsyncRedisCluster | None = None
        self._discovery = asyncio.Lock()
        self._learnt_at = 0.0
        self._sentinel: AsyncSentinel | None = None
        if topology.kind == SENTINEL:
            self._sentinel = AsyncSentinel(list(topology.addresses), socket_timeout=timeout_seconds)
            master = self._sentinel.master_for(
                topology.master_name, db=topology.db, username=topology.username, password=topology.password
            )
            self._pool = master.connection_pool
        elif topology.kind == SINGLE:
            self._pool = redis.asyncio.ConnectionPool.from_url(topology.url)

    async def address_of(self, prefix: str) -> Address | None:
        """Return the node that holds the shard with this key prefix; None where there is but one server."""
        if self._topology.kind != CLUSTER:
            return None
        async with self._discovery:
            if self._cluster is None:
                self._cluster = await self._discover()
                self._learnt_at = time.monotonic()
            node = self._cluster.nodes_manager.get_node_from_slot(key_slot(prefix.encode()))
        return str(node.host), int(node.port)

    async def _discover(self) -> AsyncRedisCluster:
        host, port = self._topology.addresses[0]
        cluster = AsyncRedisCluster(
            host=host,
            port=port,
            startup_nodes=[redis.asyncio.cluster.ClusterNode(*address) for address in self._topology.addresses],
            socket_timeout=self._timeout_seconds,
            username=self._topology.username,
            password=self._topology.password,
        )
        try:
            await cluster.initialize()
        except BaseException:
            await cluster.aclose()
            raise
        return cluster

    async def connect(self, address: Address | None) -> AbstractConnection:
        """Return a new, connected connection. Raises redis.RedisError or OSError."""
        if address is None:
            connection: AbstractConnection = self._pool.make_connection()
        else:
            connection = redis.asyncio.Connection(
                host=address[0], port=address[1], username=self._topology.username, password=self._topology.password
            )
        await connection.connect()
        return connection

    async def master_address(self) -> Address | None:
        """Return where the Sentinels say that the master is now; None without Sentinels. Raises redis.RedisError."""
        if self._sentinel is None:
            return None
        host, port = await self._sentinel.discover_master(self._topology.master_name)
        return str(host), int(port)

    async def forget(self) -> None:
        """Forget which node holds what; the next question asks the Cluster again."""
        if self._cluster is not None and time.monotonic() - self._learnt_at > KEPT_SECONDS:
            await self.aclose()

    async def aclose(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.aclose()
