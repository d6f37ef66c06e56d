"""The sandbox payment provider by itself: what it remembers, what it refuses, and that it tells until it is heard."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sandbox.payments_webhooks import SIGNATURE_HEADER, sign
from tests.support.payment_sandbox import FOLDER_ABOVE, SECRET, PaymentSandbox, wait_until

REFERENCE = UUID(int=7)
CHECKOUT = {
    "reference": REFERENCE.hex,
    "amount_cents": 1000,
    "currency": "usd",
    "description": "Top-up 1",
    "email": "a@example.org",
    "return_url": "http://localhost/back",
    "cancel_url": "http://localhost/",
}


class Seller(HTTPServer):
    """Hears webhooks, and answers the first ones with `refusals`."""

    def __init__(self, *refusals: int) -> None:
        super().__init__(("127.0.0.1", 0), _Ear)
        self.refusals = list(refusals)
        self.heard: list[tuple[dict[str, Any], bool]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message, _ in self.heard]


class _Ear(BaseHTTPRequestHandler):
    server: Seller

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        header = self.headers[SIGNATURE_HEADER]
        at = int(header.split(",")[0].removeprefix("t="))
        self.server.heard.append((json.loads(body), header == sign(body, SECRET, at)))
        self.send_response(self.server.refusals.pop(0) if self.server.refusals else 200)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """What was heard is kept."""


@pytest.fixture
def seller() -> Iterator[Seller]:
    seller = Seller(500, 503)
    yield seller
    seller.shutdown()
    seller.server_close()


def call(sandbox: PaymentSandbox, path: str, fields: dict[str, Any], **headers: str) -> dict[str, Any]:
    request = urllib.request.Request(sandbox.url + path, json.dumps(fields).encode(), headers)  # noqa: S310  Our own.
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
        return answer


def refusal(sandbox: PaymentSandbox, path: str, fields: dict[str, Any], **headers: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        call(sandbox, path, fields, **headers)
    with caught.value as error:
        return error.code


def test_it_tells_until_it_is_heard_and_signs_each_message(seller: Seller) -> None:
    with PaymentSandbox(webhook_url=seller.url) as sandbox:
        sandbox.choose(call(sandbox, "/v1/checkouts", CHECKOUT)["url"], "pay")
        sandbox.wait_until_heard()
    assert seller.kinds == ["checkout.paid"] * 3
    assert {message["id"] for message, _ in seller.heard} == {seller.heard[0][0]["id"]}
    assert all(is_signed for _, is_signed in seller.heard)


def test_killed_it_remembers_what_was_paid_and_what_it_has_to_tell(seller: Seller, tmp_path: Path) -> None:
    sandbox = PaymentSandbox(webhook_url=seller.url, state=tmp_path / "payments.sqlite")
    with sandbox:
        sandbox.control(webhooks="late")
        sandbox.choose(call(sandbox, "/v1/checkouts", CHECKOUT)["url"], "pay")
        sandbox.stop(signal.SIGKILL)
        assert seller.kinds == []
        sandbox.start()
        assert sandbox.checkout(REFERENCE)["status"] == "paid"
        wait_until(lambda: len(seller.kinds) == 3, "The payment is told")


def test_a_reference_has_one_checkout_and_one_amount() -> None:
    with PaymentSandbox() as sandbox:
        first = call(sandbox, "/v1/checkouts", CHECKOUT)
        assert call(sandbox, "/v1/checkouts", CHECKOUT)["id"] == first["id"]
        assert refusal(sandbox, "/v1/checkouts", CHECKOUT | {"amount_cents": 1001}) == 409
        for changes in ({"amount_cents": 0}, {"amount_cents": "10"}, {"currency": "jpy"}, {"reference": ""}):
            assert refusal(sandbox, "/v1/checkouts", CHECKOUT | changes) == 400


def test_a_refund_is_made_once_for_its_key_and_never_beyond_what_was_paid() -> None:
    with PaymentSandbox() as sandbox:
        sandbox.choose(call(sandbox, "/v1/checkouts", CHECKOUT)["url"], "pay")
        charge = {"charge": sandbox.checkout(REFERENCE)["charge"], "amount_cents": 600}
        for _ in range(2):
            assert call(sandbox, "/v1/refunds", charge, **{"idempotency-key": "a"})["refunded_cents"] == 600
        assert refusal(sandbox, "/v1/refunds", charge | {"amount_cents": 5}, **{"idempotency-key": "a"}) == 409
        assert refusal(sandbox, "/v1/refunds", charge, **{"idempotency-key": "b"}) == 409
        assert refusal(sandbox, "/v1/refunds", charge | {"charge": "ch_none"}) == 404


def test_a_page_that_was_paid_pays_nothing_more() -> None:
    with PaymentSandbox() as sandbox:
        url = call(sandbox, "/v1/checkouts", CHECKOUT)["url"]
        sandbox.choose(url, "later")
        for action in ("pay", "pay", "later", "decline", "free"):
            sandbox.choose(url, action)
        checkout = sandbox.checkout(REFERENCE)
        assert (checkout["status"], checkout["paid_cents"]) == ("paid", 1000)


def test_it_sends_nothing_unsigned() -> None:
    command = [sys.executable, "-m", "sandbox.payments_server", "--port", "0", "--webhook-url", "http://127.0.0.1:1/"]
    environment = {name: value for name, value in os.environ.items() if name != "SANDBOX_PAYMENTS_SECRET"}
    result = subprocess.run(
        command, cwd=FOLDER_ABOVE, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert "SANDBOX_PAYMENTS_SECRET is not set" in result.stderr
