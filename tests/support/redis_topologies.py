"""Where a stack's admission lives: one Redis, a Cluster of three masters, or a master and a replica under a Sentinel.

Each has a `url`, start() and stop(), the `masters()` of now, and bring_back() for one of them that was killed.
"""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import redis

from billing.admission.redis.topology import CLUSTER, SENTINEL, SINGLE
from crossmodel_site.embedded import RedisServer, find_free_port, port_is_taken
from crossmodel_site.embedded.binaries import find_redis
from crossmodel_site.embedded.process import start_child

HOST = "127.0.0.1"
MASTER_NAME = "crossmodel"
START_SECONDS = 20.0
COMMAND_SECONDS = 5.0
BUS_PORT_OFFSET = 10_000
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction")


class RedisNode(Protocol):
    """A redis-server that can be killed and started again. Its data lie in `folder`."""

    folder: Path

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def client(self) -> redis.Redis: ...


class AdmissionRedis(Protocol):
    """`kind` is that of billing.admission.redis.topology."""

    kind: str

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def masters(self) -> Sequence[RedisNode]: ...

    def bring_back(self, *dead: RedisNode) -> None:
        """Start killed nodes again, and return once all are as they should be."""


class SingleRedis(RedisServer):
    kind = SINGLE

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def masters(self) -> Sequence[RedisNode]:
        return [self]

    def bring_back(self, *dead: RedisNode) -> None:
        self.start()


class RedisProcess:
    """One redis-server of a group, with a folder and a port that outlive the process."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = find_free_port()
        while port_is_taken(self.port + BUS_PORT_OFFSET):
            self.port = find_free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    def start(self) -> None:
        command: list[str | Path] = [find_redis(), "--bind", HOST, "--port", str(self.port), "--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self.process = start_child([*command, *DURABLE, *self.options], output=log.fileno(), folder=self.folder)
        wait_until(self._answers, f"Redis on port {self.port} answers")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, socket_timeout=COMMAND_SECONDS)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class RedisCluster:
    """Three masters that share the slots; no replica, so that a killed one must come back with its data."""

    kind = CLUSTER

    def __init__(self, folder: Path) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        self._nodes = [RedisProcess(folder / f"master-{n}", *options) for n in range(3)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self._nodes)

    def masters(self) -> Sequence[RedisNode]:
        return self._nodes

    def start(self) -> None:
        for node in self._nodes:
            node.start()
        addresses = [f"{HOST}:{node.port}" for node in self._nodes]
        program = find_redis().with_name("redis-cli")
        command = [str(program), "--cluster", "create", *addresses, "--cluster-yes"]
        subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)
        self.wait_until_whole()

    def stop(self) -> None:
        for node in self._nodes:
            node.kill()

    def bring_back(self, *dead: RedisNode) -> None:
        for node in self._nodes:
            if node in dead:
                node.start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Return once every master says that all slots are served."""
        wait_until(lambda: all(map(_says_cluster_ok, self._nodes)), "the Cluster is whole")


class SentinelGroup:
    """A master, its replica, and one Sentinel, which makes the replica master when the master is gone for a second."""

    kind = SENTINEL

    def __init__(self, folder: Path) -> None:
        self.nodes = [RedisProcess(folder / name) for name in ("first", "second")]
        self._sentinel_folder = folder / "sentinel"
        self._sentinel_port = find_free_port()
        self._sentinel: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis+sentinel://{HOST}:{self._sentinel_port}/{MASTER_NAME}"

    def start(self) -> None:
        first, second = self.nodes
        first.start()
        second.options = ("--replicaof", HOST, str(first.port))
        second.start()
        with second.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")
        self._start_sentinel(first.port)

    def stop(self) -> None:
        if self._sentinel is not None:
            self._sentinel.kill()
            self._sentinel.wait()
        for node in self.nodes:
            node.kill()

    def master(self) -> RedisProcess:
        """Return the node that the Sentinel names as master now."""
        with redis.Redis(host=HOST, port=self._sentinel_port, socket_timeout=2) as sentinel:
            address = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
        return next(node for node in self.nodes if node.port == int(address[1]))

    def masters(self) -> Sequence[RedisNode]:
        return [self.master()]

    def bring_back(self, *dead: RedisNode) -> None:
        """Start what was killed; whether it is master still, or follows now, is the Sentinel's to say."""
        for node in self.nodes:
            if node in dead:
                node.options = ()
                node.start()
        self.wait_until_replicated()

    def replica(self) -> RedisProcess:
        master = self.master()
        return next(node for node in self.nodes if node is not master)

    def wait_until_replicated(self) -> None:
        """Return once the replica follows the master, so that the next failover finds one."""

        def follows() -> bool:
            try:
                with self.replica().client() as client:
                    state = client.info("replication")
            except redis.RedisError:
                return False
            return bool(state["role"] == "slave" and state["master_link_status"] == "up")

        wait_until(follows, "the replica follows")

    def _start_sentinel(self, master_port: int) -> None:
        self._sentinel_folder.mkdir(parents=True)
        path = self._sentinel_folder / "sentinel.conf"
        lines: Sequence[str] = (
            f"bind {HOST}",
            f"port {self._sentinel_port}",
            f"dir {self._sentinel_folder}",
            f"sentinel monitor {MASTER_NAME} {HOST} {master_port} 1",
            f"sentinel down-after-milliseconds {MASTER_NAME} 1000",
            f"sentinel failover-timeout {MASTER_NAME} 3000",
        )
        path.write_text("\n".join(lines) + "\n")
        with (self._sentinel_folder / "log").open("ab") as log:
            self._sentinel = start_child([find_redis(), path, "--sentinel"], output=log.fileno())
        wait_until(lambda: port_is_taken(self._sentinel_port), "the Sentinel listens")
        with redis.Redis(host=HOST, port=self._sentinel_port, socket_timeout=2) as sentinel:
            wait_until(lambda: _knows_a_replica(sentinel), "the Sentinel knows the replica")


TOPOLOGIES: dict[str, Callable[[Path], AdmissionRedis]] = {
    SINGLE: SingleRedis,
    CLUSTER: RedisCluster,
    SENTINEL: SentinelGroup,
}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    ends_at = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > ends_at:
            raise AssertionError(f"Waited in vain until {what}.")
        time.sleep(0.05)


def _says_cluster_ok(master: RedisProcess) -> bool:
    with master.client() as client:
        return bool(client.cluster("INFO")["cluster_state"] == "ok")


def _knows_a_replica(sentinel: redis.Redis) -> bool:
    return bool(sentinel.execute_command("SENTINEL", "REPLICAS", MASTER_NAME))
