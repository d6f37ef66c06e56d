"""`make run`: starts everything, shows how to use it, keeps it alive, and stops it in order."""

import http.client
import importlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, ModuleType
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from crossmodel_site.embedded import PostgresServer, RedisServer, ServerError, find_free_port, port_is_taken
from crossmodel_site.embedded.process import start_child
from crossmodel_site.local.child import Child
from crossmodel_site.local.environment import forget_variables_of_others
from crossmodel_site.local.errors import LocalRunError, StopRequestedError
from crossmodel_site.local.folder import DataFolder
from crossmodel_site.local.mail import MailFolder
from crossmodel_site.local.screen import complain, render_screen, say
from crossmodel_site.local.supervisor import Supervisor

HIGHEST_PORT = 65_535
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Streams get this long to end when the gateway is asked to stop.
DRAIN_SECONDS = 10
BROKER_DATABASE = 1
UVICORN = [
    *("uvicorn", "crossmodel_site.asgi:application", "--workers", "1", "--loop", "uvloop", "--ws", "none"),
    *("--http", "gateway.http_protocol:HttpProtocol", "--no-proxy-headers", "--no-server-header"),
    *("--no-access-log", "--log-level", "warning"),
]
PAYMENT_SECRET_BYTES = 32
WORKER_READY_LINE = "Worker is ready."  # See crossmodel_site/celery.py.
HEALTH_TIMEOUT_SECONDS = 2.0
# A signal this soon after the first is the same wish: make and a terminal may both pass it on. A later one means: now.
SAME_WISH_SECONDS = 1.0


def main() -> int:
    """Run until asked to stop. Returns 0 then, 1 when the start failed."""
    for number in STOP_SIGNALS:
        # Under nohup the run is meant to outlive its terminal. SIGINT is ignored in the background of a script, but
        # whoever sends it to this very process means it.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _request_stop)
    forget_variables_of_others()
    os.umask(0o077)  # What a run writes holds passwords, mail and usage: it is for its owner.
    supervisor: Supervisor | None = None
    try:
        settings = _load_settings()
        folder = DataFolder(settings.DATA_DIR)
        folder.take()
        _check_address(settings.HOST, settings.PORT)
        supervisor = Supervisor(MailFolder(folder.mail_path))
        start(supervisor, folder, settings)
        supervisor.run()
    except StopRequestedError:
        say("Stopping")
        return 0
    except (ImproperlyConfigured, LocalRunError, ServerError) as error:
        if str(error):
            complain(str(error))
        return 1
    finally:
        if supervisor is not None:
            _stop(supervisor)


def _check_address(host: str, port: int) -> None:
    """Raises LocalRunError when the gateway could not listen there."""
    try:
        is_taken = port_is_taken(port, host)
    except OSError as error:
        raise LocalRunError(
            f"CrossModel cannot listen on {host}, port {port} ({error.strerror}); see CROSSMODEL_HOST."
        ) from None
    if is_taken:
        other = port + 1 if port < HIGHEST_PORT else port - 1
        raise LocalRunError(f"Port {port} is taken; choose another: PORT={other} make run")


def start(supervisor: Supervisor, folder: DataFolder, settings: ModuleType) -> None:
    """Start servers and processes and show the screen. Raises LocalRunError or ServerError."""
    variables = _start_servers(supervisor, folder)
    sandbox_port = find_free_port()
    variables["CROSSMODEL_SANDBOX_URL"] = f"http://127.0.0.1:{sandbox_port}"
    payments_port = _payments_port(settings.PAYMENT_SANDBOX_URL)
    variables["CROSSMODEL_PAYMENT_SANDBOX_URL"] = f"http://127.0.0.1:{payments_port}"
    variables["CROSSMODEL_PAYMENT_SANDBOX_SECRET"] = secrets.token_urlsafe(PAYMENT_SECRET_BYTES)
    folder.write_servers(variables)
    environment = {**os.environ, **variables, "CROSSMODEL_DATA": str(folder.path), "PYTHONUNBUFFERED": "1"}
    environment.setdefault("CROSSMODEL_METRICS_DIR", str(folder.make_metrics_folder()))
    _prepare_database(environment)
    admission_opens = time.monotonic() + settings.ADMISSION.reopen_seconds

    say("Starting the gateway, pages, worker, beat and sandbox")
    python = [sys.executable, "-m"]
    # Who starts this as root knows it; Celery's warning of it would be the first thing on the screen.
    celery = [sys.executable, "-W", "ignore:You're running the worker with superuser", "-m", "celery", "--quiet"]
    celery += ["--app", "crossmodel_site"]
    gateway = [*python, *UVICORN, "--host", settings.HOST, "--port", str(settings.PORT)]
    gateway += ["--timeout-graceful-shutdown", str(DRAIN_SECONDS)]
    worker = [*celery, "worker", "--loglevel", "WARNING", "--pool", "threads", "--concurrency", "2"]
    worker += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    sandbox = [*python, "sandbox", "--port", str(sandbox_port), "--journal", str(folder.path / "sandbox-journal.jsonl")]
    page_socket = None if "CROSSMODEL_PAGES" in os.environ else folder.make_page_socket()
    passes_on = {} if page_socket is None else {"CROSSMODEL_PAGES": str(page_socket)}
    supervisor.start_child(Child("gateway", gateway, environment | passes_on, show_name=False))
    if page_socket is not None:
        pages = [*python, *UVICORN, "--uds", str(page_socket), "--no-date-header"]
        supervisor.start_child(Child("pages", pages, environment | {"CROSSMODEL_PAGES": "only"}, show_name=False))
    supervisor.start_child(Child("beat", [*celery, "beat", "--loglevel", "WARNING"], environment))
    supervisor.start_child(
        Child("worker", worker, environment, ready_line=WORKER_READY_LINE, hidden_lines=("worker: Warm shutdown",))
    )
    supervisor.start_child(Child("sandbox", sandbox, environment, ready_line="sandbox upstream ready"))
    payments = [*python, "sandbox.payments_server", "--port", str(payments_port)]
    payments += ["--state", str(folder.path / "sandbox-payments.sqlite")]
    payments += ["--webhook-url", f"http://127.0.0.1:{settings.PORT}/webhooks/sandbox/"]
    payment_secret = {"SANDBOX_PAYMENTS_SECRET": variables["CROSSMODEL_PAYMENT_SANDBOX_SECRET"]}
    supervisor.start_child(
        Child("payments", payments, environment | payment_secret, ready_line="sandbox payments ready")
    )
    supervisor.wait_until_ready()
    supervisor.wait_until(lambda: _is_healthy(settings.HOST, settings.PORT), "The gateway")
    supervisor.wait_until(lambda: page_socket is None or _listens(page_socket), "The process that makes pages")
    supervisor.wait_until(lambda: time.monotonic() > admission_opens, "Admission")

    known = json.loads(folder.credentials_path.read_text())
    say(
        render_screen(
            folder.read_demo(),
            payments_url=variables["CROSSMODEL_PAYMENT_SANDBOX_URL"],
            credentials_set=[name for name in known if os.environ.get(name)],
            credentials_known=known,
            stop_hint="Ctrl-C stops everything. Requests appear below as they are served.",
        )
    )


def _payments_port(earlier_url: str) -> int:
    """Return the port of the last run where it is free: pay pages that are open in a browser go on working."""
    earlier = urlsplit(earlier_url).port if earlier_url else None
    return earlier if earlier and not port_is_taken(earlier, "127.0.0.1") else find_free_port()


def _start_servers(supervisor: Supervisor, folder: DataFolder) -> dict[str, str]:
    """Start what the environment names no address of. Returns every address as settings variables."""
    variables = {"DJANGO_SECRET_KEY": os.environ.get("DJANGO_SECRET_KEY") or folder.read_secret_key()}
    database_url, redis_url = os.environ.get("DATABASE_URL", ""), os.environ.get("REDIS_URL", "")
    broker_url = os.environ.get("CELERY_BROKER_URL", "")
    if not database_url:
        say(f"Starting Postgres; its data are in {folder.path / 'postgres'}")
        postgres = PostgresServer(folder.path / "postgres")
        supervisor.start_server(postgres)
        postgres.make_application_role()
        database_url = postgres.application_url
    if not redis_url:
        say(f"Starting Redis; its data are in {folder.path / 'redis'}")
        redis = RedisServer(folder.path / "redis")
        supervisor.start_server(redis)
        redis_url = redis.url
        broker_url = broker_url or redis.url.removesuffix("/0") + f"/{BROKER_DATABASE}"
    return variables | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "CELERY_BROKER_URL": broker_url or redis_url,
    }


def _prepare_database(environment: Mapping[str, str]) -> None:
    """Raises LocalRunError, after the preparing process has said what is wrong."""
    process = start_child([sys.executable, "-m", "crossmodel_site.local.prepare"], environment=environment)
    try:
        if process.wait():
            raise LocalRunError
    finally:
        process.kill()
        process.wait()


def _is_healthy(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=HEALTH_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _load_settings() -> ModuleType:
    """Return the settings module itself, which reads the environment only. Raises ImproperlyConfigured."""
    return importlib.import_module("crossmodel_site.settings")


def _stop(supervisor: Supervisor) -> None:
    try:
        supervisor.stop()
    except StopRequestedError:
        say("Killing what is left")
        supervisor.kill()


_first_wish = 0.0


def _request_stop(number: int, frame: FrameType | None) -> None:
    global _first_wish
    now = time.monotonic()
    if not _first_wish or now - _first_wish > SAME_WISH_SECONDS:
        _first_wish = _first_wish or now
        raise StopRequestedError


if __name__ == "__main__":
    sys.exit(main())
