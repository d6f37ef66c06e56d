"""All that is measured: Postgres and Redis as durable as in production, gateway, worker, beat, upstream, nginx.

Each is a process of its own, started with the flags of `make run`. Everything lives in one folder and dies with us.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.upstream import READY_LINE
from crossmodel_site.embedded import PostgresServer, RedisServer, find_free_port
from crossmodel_site.embedded.process import start_child

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 180.0  # A busy machine takes more than a minute for all migrations.
PEER_START_SECONDS = 300.0  # Other gateways may take more than a minute to start.
STOP_SECONDS = 20.0
RUN_SECONDS = 600.0
POLL_SECONDS = 0.05

# Limits are enforced as always, only so high that nobody reaches them.
SETTINGS = {
    "CROSSMODEL_DEFAULT_REQUESTS_PER_MINUTE": "100000000",
    "CROSSMODEL_DEFAULT_CONCURRENT_REQUESTS": "1000000",
    "CROSSMODEL_WELCOME_CREDIT_USD": "0",
    # The disk of a busy machine may hold Redis up for longer than the quarter of a second that is usual.
    "CROSSMODEL_REDIS_TIMEOUT_SECONDS": "2",
    "DJANGO_SECRET_KEY": "for-benchmarks-only",
}
# How nginx calls its upstream: over connections that it keeps, as the gateway does, or each call over a new one, as it
# does unless told otherwise.
KEPT = """
    upstream model {{ server 127.0.0.1:{upstream_port}; keepalive 256; keepalive_requests 1000000000; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
"""
AS_IT_COMES = "    upstream model {{ server 127.0.0.1:{upstream_port}; }}"
NGINX = """
daemon off;
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 1000000000;
{upstream}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://model; }}
    }}
}}
"""


class Program:
    """A process with its log; `port` is where it listens."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", port: int = 0) -> None:
        self.name = name
        self.process = process
        self.port = port

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Deployment:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = PostgresServer(folder / "postgres")
        self.redis = RedisServer(folder / "redis")
        self.upstream_port = find_free_port()
        self._programs: list[Program] = []

    @property
    def environment(self) -> dict[str, str]:
        """What every process of ours gets; nothing of CrossModel's that is set where the benchmark is started."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CROSSMODEL_") and not name.endswith("_API_KEY")
        }
        return {
            **kept,
            **SETTINGS,
            "CROSSMODEL_DATA": str(self.folder / "var"),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
            "CELERY_BROKER_URL": self.redis.url.removesuffix("/0") + "/1",
            "CROSSMODEL_SANDBOX_URL": f"http://127.0.0.1:{self.upstream_port}",
            "PYTHONPATH": str(ROOT),
        }

    def start_servers(self) -> None:
        """Start Postgres and Redis and fill Postgres with the catalog."""
        (self.folder / "var").mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # Postgres may run as another user, who must pass.
        self.postgres.start()
        self.redis.start()
        self.manage("migrate", "--verbosity", "0")
        self.manage("load_catalog", str(ROOT / "billing/catalog/default.toml"), "--approve")

    def manage(self, *arguments: str) -> str:
        """Run a management command and return what it printed. Raises RuntimeError with that when it fails."""
        answer = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if answer.returncode:
            raise RuntimeError(f"{arguments[0]} failed:\n{answer.stdout}{answer.stderr}")
        return answer.stdout

    def run_module(self, module: str, *arguments: str, seconds: float = RUN_SECONDS) -> dict[str, Any]:
        """Run one of our modules to its end and return what it printed, which is JSON."""
        command = [sys.executable, "-m", module, *arguments]
        answer = subprocess.run(
            command, env=self.environment, cwd=ROOT, stdout=subprocess.PIPE, timeout=seconds, check=True, text=True
        )
        result: dict[str, Any] = json.loads(answer.stdout)
        return result

    def start_upstream(self, *options: str) -> Program:
        program = self._python("upstream", "bench.upstream", "--port", str(self.upstream_port), *options)
        self._wait_until(lambda: READY_LINE in self._log_path("upstream").read_text(), program)
        return program

    def start_gateway(self) -> Program:
        return self._serve(
            "gateway", "crossmodel_site.asgi:application", http="gateway.http_protocol:HttpProtocol", answers=401
        )

    def start_bare(self) -> Program:
        return self._serve("bare", "bench.bare:application", http="httptools", answers=200)

    def start_worker(self) -> Program:
        # The flags of `make run`, with beat inside: it costs the same there.
        return self._python(
            "worker", "celery", "--quiet", "--app", "crossmodel_site", "worker", "--beat", "--loglevel", "WARNING",
            "--pool", "threads", "--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat",
        )  # fmt: skip

    def start_nginx(self, name: str, *, keeps_connections: bool) -> Program | None:
        """Start nginx as a plain proxy to the upstream; None where it is not installed."""
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if nginx is None:
            return None
        port = find_free_port()
        path = self.folder / f"{name}.conf"
        upstream = (KEPT if keeps_connections else AS_IT_COMES).format(upstream_port=self.upstream_port)
        path.write_text(NGINX.format(name=name, folder=self.folder, port=port, upstream=upstream))
        program = self._start(name, [nginx, "-e", str(self._log_path(name)), "-c", str(path)], port)
        self._wait_until(lambda: _status(port) == 200, program)
        return program

    def start_peer(self, name: str, command: list[str], variables: Mapping[str, str]) -> Program:
        """Start another gateway; `{port}` in its command is where it is to listen. Returns once it answers."""
        port = find_free_port()
        ours = ("CROSSMODEL_", "DATABASE_URL", "REDIS_URL", "CELERY_", "DJANGO_", "PYTHONPATH")
        kept = {key: value for key, value in self.environment.items() if not key.startswith(ours)}
        program = self._start(name, [part.format(port=port) for part in command], port, {**kept, **variables})
        self._wait_until(lambda: _status(port) != 0, program, seconds=PEER_START_SECONDS)
        return program

    def stop(self) -> None:
        for program in reversed(self._programs):
            if program.process.poll() is None:
                program.stop()
        self.redis.stop()
        self.postgres.stop()

    def _serve(self, name: str, application: str, *, http: str, answers: int) -> Program:
        port = find_free_port()
        program = self._python(
            name, "uvicorn", application, "--port", str(port), "--loop", "uvloop", "--http", http,
            "--ws", "none", "--no-access-log", "--no-proxy-headers", "--no-server-header", "--log-level", "warning",
            "--backlog", "4096", port=port,
        )  # fmt: skip
        self._wait_until(lambda: _status(port) == answers, program)
        return program

    def _python(self, name: str, module: str, *arguments: str, port: int = 0) -> Program:
        return self._start(name, [sys.executable, "-m", module, *arguments], port)

    def _start(self, name: str, command: list[str], port: int, environment: Mapping[str, str] | None = None) -> Program:
        with self._log_path(name).open("wb") as log:
            given = dict(environment if environment is not None else self.environment)
            process = start_child(command, environment=given, folder=ROOT, output=log.fileno())
        program = Program(name, process, port)
        self._programs.append(program)
        return program

    def _log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _wait_until(self, is_ready: Callable[[], bool], program: Program, *, seconds: float = START_SECONDS) -> None:
        ends_at = time.monotonic() + seconds
        while not is_ready():
            if program.process.poll() is not None or time.monotonic() > ends_at:
                log = self._log_path(program.name).read_text()[-3000:]
                raise RuntimeError(f"{program.name} did not start:\n{log}")
            time.sleep(POLL_SECONDS)


def _status(port: int) -> int:
    """Return what a POST without a key is answered with; 0 for nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/v1/messages", body=b"{}")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
