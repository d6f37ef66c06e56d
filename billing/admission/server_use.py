"""How full the Redis servers are: connections and memory, of what they may have."""

from typing import NamedTuple

import redis

from billing.admission.durability import servers
from billing.admission.errors import AdmissionUnavailableError


class ServerUse(NamedTuple):
    """Of all servers together. A bound of 0 is none, or one that the server keeps to itself."""

    connections: int
    max_connections: int
    memory_bytes: int
    max_memory_bytes: int


def read_server_use() -> ServerUse:
    """Return what admission's servers have in use. Raises AdmissionUnavailableError."""
    try:
        infos = [{**server.info("clients"), **server.info("memory")} for server in servers()]
    except (redis.RedisError, OSError, AttributeError) as error:
        raise AdmissionUnavailableError(f"Redis cannot be used: {error}") from error
    names = ("connected_clients", "maxclients", "used_memory", "maxmemory")
    return ServerUse(*(sum(int(info.get(name) or 0) for info in infos) for name in names))
