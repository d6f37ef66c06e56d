"""A Redis of one's own that never loses an acknowledged write and never evicts."""

import signal
import socket
import subprocess

from crossmodel_site.embedded.binaries import find_redis
from crossmodel_site.embedded.process import start_child
from crossmodel_site.embedded.server import HOST, Server

PING_TIMEOUT_SECONDS = 1.0
# Wakes five times a second instead of ten; also how late a blocking read may end.
HERTZ = 5


class RedisServer(Server):
    name = "Redis"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        return f"redis://:{self.read_password()}@{HOST}:{self.port}/0"

    def prepare(self) -> None:
        """Write the configuration again at every start, so that a newer version of this program changes it."""
        path = self.folder / "redis.conf"
        path.touch(mode=0o600)
        path.write_text(
            "\n".join(
                [
                    f"bind {HOST}",
                    f"port {self.port}",
                    f'dir "{self.folder}"',
                    f"requirepass {self.read_password()}",
                    "daemonize no",
                    'save ""',
                    "appendonly yes",
                    f"appendfsync {'always' if self.durable else 'no'}",
                    # A write cut short by a crash was never acknowledged: leaving it out loses nothing.
                    "aof-load-truncated yes",
                    "maxmemory-policy noeviction",
                    f"hz {HERTZ}",
                    "loglevel notice",
                    "",
                ]
            )
        )

    def spawn(self, log: int) -> "subprocess.Popen[bytes]":
        return start_child([find_redis(), self.folder / "redis.conf"], output=log, folder=self.folder)

    def answers(self) -> bool:
        """Say whether it has loaded its data and answers PING."""
        command = f"AUTH {self.read_password()}\r\nPING\r\n".encode()
        try:
            with socket.create_connection((HOST, self.port), timeout=PING_TIMEOUT_SECONDS) as connection:
                connection.sendall(command)
                answer = b""
                while answer.count(b"\r\n") < 2:
                    chunk = connection.recv(200)
                    if not chunk:
                        return False
                    answer += chunk
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"
