"""Loopback ports for servers of one's own."""

import errno
import random
import socket
from pathlib import Path

LOWEST_PORT = 15_000
HIGHEST_PORT = 32_000
MAX_TRIES = 200

_reserved: list[socket.socket] = []


def find_free_port() -> int:
    """Return a loopback TCP port on which nothing listens, below the range of outgoing connections.

    The kernel gives outgoing connections ports of its ephemeral range. A server on such a port could be killed and
    find its port taken when it comes back, by a client that was trying to reach it.

    Until this process ends, no other that asks here is given the same port, also while no server runs on it.
    """
    highest = min(HIGHEST_PORT, _lowest_ephemeral_port() - 1)
    for _ in range(MAX_TRIES):
        port = random.randint(min(LOWEST_PORT, highest - 1000), highest)
        if not port_is_taken(port) and _reserve(port):
            return port
    raise OSError(f"No free TCP port was found between {LOWEST_PORT} and {highest}.")


def _reserve(port: int) -> bool:
    """Hold the UDP port of this number, which nobody here listens to, as a mark; False when another holds it."""
    mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        mark.bind(("127.0.0.1", port))
    except OSError:
        mark.close()
        return False
    _reserved.append(mark)
    return True


def port_is_taken(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether somebody else listens there. Raises OSError when nobody could: no such address, not permitted."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


def _lowest_ephemeral_port() -> int:
    try:
        return max(2048, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
    except (OSError, ValueError, IndexError):
        return HIGHEST_PORT
