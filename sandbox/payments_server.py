"""`python -m sandbox.payments_server`: the sandbox payment provider as a server of its own.

POST /v1/checkouts              {reference, amount_cents, currency, mode, ...}  one checkout a reference
GET  /v1/orders/<reference>     the checkout of a payment
GET  /v1/payments?start=&end=   what was paid in a span, by its own clock, in seconds
GET  /v1/refunds?charge=        the checkout of a charge, with its refunds
POST /v1/refunds                {charge, amount_cents}, header idempotency-key
POST /v1/charges                {reference, amount_cents, currency, customer, method}
GET  /pay/<id>                  the pay page
GET  /                          all payments, with what can be done to them
POST /control                   {"webhooks": "", "lose", "double", "late" or "reverse"; "down": true}
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sandbox import payments, payments_pages
from sandbox.payments import RefusedError
from sandbox.payments_store import Store
from sandbox.payments_webhooks import DISORDERS, Sender

READY_PREFIX = "sandbox payments ready at "
MAX_BODY_BYTES = 64 * 1024
MAX_LISTED = 100
SOCKET_SECONDS = 30.0
MAX_ANSWER_AFTER_SECONDS = 60.0
SECRET_VARIABLE = "SANDBOX_PAYMENTS_SECRET"  # noqa: S105  The variable's name.


class Payments:
    """The provider: what it remembers, whom it tells, and whether it plays dead."""

    def __init__(self, store: Store, sender: Sender) -> None:
        self.store = store
        self.sender = sender
        self.is_down = False
        self.answer_after_seconds = 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SOCKET_SECONDS
    server_version, sys_version = "sandbox-payments", ""

    def __init__(self, provider: Payments, *arguments: Any) -> None:
        self.provider = provider
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        store = self.provider.store
        if self.provider.is_down:
            self._json(503, {"error": {"code": "down", "message": "sandbox: down on purpose"}})
        elif path == "/":
            events = store.list_events(MAX_LISTED)
            self._html(200, payments_pages.payments_page(store.list_newest(MAX_LISTED), events))
        elif path.startswith("/pay/"):
            checkout = store.find("id", path.removeprefix("/pay/"))
            page = payments_pages.pay_page(checkout) if checkout else payments_pages.message_page("No such checkout.")
            self._html(200 if checkout else 404, page)
        elif path.startswith("/v1/"):
            self._api(lambda: self._read(path, query))
        else:
            self._html(404, payments_pages.message_page("There is nothing here."))

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        length = int(self.headers.get("content-length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self._json(413, {"error": {"code": "too_large", "message": "sandbox: too large"}})
            return
        body = self.rfile.read(length)
        if path == "/control":
            self._api(lambda: self._control(json.loads(body)))
        elif self.provider.is_down:
            self._json(503, {"error": {"code": "down", "message": "sandbox: down on purpose"}})
        elif path.startswith("/v1/"):
            self._api(lambda: self._change(path, json.loads(body)), after=self.provider.answer_after_seconds)
        elif path.startswith("/pay/"):
            self._pay(path.removeprefix("/pay/"), _form(body).get("action", ""))
        elif path == "/":
            self._step(_form(body))
        else:
            self._html(404, payments_pages.message_page("There is nothing here."))

    def _read(self, path: str, query: dict[str, list[str]]) -> Any:
        store = self.provider.store
        if path.startswith("/v1/orders/"):
            checkout = store.find("reference", path.removeprefix("/v1/orders/"))
            if checkout is None:
                raise RefusedError(404, "unknown_order", "sandbox: no checkout has this reference")
            return payments.shown(checkout)
        if path == "/v1/payments":
            start, end = (int(query[name][0]) for name in ("start", "end"))
            return {"payments": [payments.shown(checkout) for checkout in store.list_paid(start, end)]}
        if path == "/v1/refunds":
            checkout = store.find("charge", query["charge"][0])
            if checkout is None:
                raise RefusedError(404, "unknown_charge", "sandbox: there is no such charge")
            return payments.shown(checkout)
        raise RefusedError(404, "not_found", "sandbox: there is nothing here")

    def _change(self, path: str, asked: dict[str, Any]) -> Any:
        store = self.provider.store
        if path == "/v1/checkouts":
            checkout = payments.open_checkout(store, asked)
            host = self.headers.get("host", "")
            return payments.shown(checkout) | {"url": f"http://{host}/pay/{checkout['id']}"}
        if path == "/v1/refunds":
            return payments.shown(payments.refund(store, asked, key=self.headers.get("idempotency-key", "")))
        if path == "/v1/charges":
            return payments.shown(payments.charge_card(store, asked))
        raise RefusedError(404, "not_found", "sandbox: there is nothing here")

    def _control(self, asked: dict[str, Any]) -> Any:
        disorder = asked.get("webhooks", self.provider.sender.disorder)
        if disorder not in DISORDERS:
            raise RefusedError(400, "invalid_disorder", f"sandbox: webhooks is one of {', '.join(DISORDERS)}")
        self.provider.sender.disorder = disorder
        self.provider.is_down = bool(asked.get("down", self.provider.is_down))
        late = float(asked.get("answer_after", self.provider.answer_after_seconds))
        self.provider.answer_after_seconds = min(max(0.0, late), MAX_ANSWER_AFTER_SECONDS)
        return {"webhooks": disorder, "down": self.provider.is_down, "answer_after": late}

    def _pay(self, checkout_id: str, action: str) -> None:
        store = self.provider.store
        checkout = store.find("id", checkout_id)
        if checkout is None:
            self._html(404, payments_pages.message_page("No such checkout."))
            return
        if action == "decline" and checkout["status"] == "open":
            self._html(200, payments_pages.declined_page(checkout))
            return
        if action == "later":
            payments.pay_later(store, checkout_id)
        elif action == "keep_declining":
            payments.pay(store, checkout_id, label=payments.DECLINING_LABEL)
        elif action in ("pay", "free"):
            payments.pay(store, checkout_id, discount_cents=checkout["amount_cents"] if action == "free" else 0)
        self._redirect(checkout["return_url"] or "/")

    def _step(self, form: dict[str, str]) -> None:
        store, checkout_id, step = self.provider.store, form.get("checkout", ""), form.get("step", "")
        checkout = store.find("id", checkout_id)
        try:
            if checkout is None:
                raise RefusedError(404, "unknown_checkout", "There is no such checkout.")
            left = payments.paid_cents(checkout) - payments.refunded_cents(checkout) if checkout.get("charge") else 0
            half = {"charge": checkout.get("charge", ""), "amount_cents": max(1, left // 2)}
            steps: dict[str, Callable[[], object]] = {
                "arrive": lambda: payments.pay(store, checkout_id),
                "bounce": lambda: payments.fail(store, checkout_id, "The bank returned the debit."),
                "refund": lambda: payments.refund(store, half | {"amount_cents": left}, key=""),
                "refund_half": lambda: payments.refund(store, half, key=""),
                "fail_refund": lambda: payments.fail_refund(store, checkout_id),
                "dispute": lambda: payments.dispute(store, checkout_id, "open"),
                "win": lambda: payments.dispute(store, checkout_id, "win"),
                "lose": lambda: payments.dispute(store, checkout_id, "lose"),
            }
            if step in steps:
                steps[step]()
        except RefusedError as error:
            self._html(error.status, payments_pages.message_page(str(error)))
            return
        self._redirect("/")

    def _api(self, answer: Callable[[], Any], *, after: float = 0.0) -> None:
        try:
            content = answer()
            time.sleep(after)
            self._json(200, content)
        except RefusedError as error:
            self._json(error.status, {"error": {"code": error.code, "message": str(error)}})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._json(400, {"error": {"code": "invalid_request", "message": f"sandbox: {error}"}})

    def _json(self, status: int, body: Any) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _html(self, status: int, page: str) -> None:
        self._send(status, "text/html; charset=utf-8", page.encode())

    def _redirect(self, address: str) -> None:
        self.send_response(303)
        self.send_header("location", address.replace("\r", "").replace("\n", ""))
        self.send_header("content-length", "0")
        self.end_headers()

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Its list of payments says what happened."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Somebody who left before the answer is no error of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # Any socket.


def _form(body: bytes) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(body.decode(errors="replace")).items()}


def _stop_with_stdin(server: ThreadingHTTPServer) -> None:
    while os.read(0, 1024):
        pass
    server.shutdown()


def main() -> int:
    """Serve until stopped; 1 with one line when it cannot start."""
    parser = argparse.ArgumentParser(prog="sandbox.payments_server", description="A payment provider that is not real.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 chooses a free one")
    parser.add_argument("--state", type=Path, help="file that it remembers payments in; in memory without one")
    parser.add_argument("--webhook-url", default="", help=f"whom it tells; messages are signed with ${SECRET_VARIABLE}")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when stdin ends")
    options = parser.parse_args()
    secret = os.environ.get(SECRET_VARIABLE, "")
    if options.webhook_url and not secret:
        parser.error(f"{SECRET_VARIABLE} is not set, and nobody should believe messages that are not signed")
    try:
        store = Store(options.state)
        provider = Payments(store, Sender(store, url=options.webhook_url, secret=secret))
        server = Server((options.host, options.port), partial(Handler, provider))
    except OSError as error:
        sys.stderr.write(f"sandbox payments: cannot serve at {options.host}:{options.port}: {error}\n")
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    if options.stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()
    provider.sender.start()
    sys.stdout.write(f"{READY_PREFIX}http://{options.host}:{server.server_port} (no real money)\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.5)
    provider.sender.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
