"""A stand-in for Stripe's API on this machine, for Stripe's own library: it keeps what it is asked for, as Stripe does.

Objects have the fields of Stripe's API reference that are read here, and some beside. It is no judge of requests:
what it was asked is kept in `requests`, for tests to compare with the reference.
"""

import hashlib
import hmac
import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

SECRET_KEY, WEBHOOK_SECRET = "sk_test_stand_in", "whsec_stand_in_for_tests"
Fields = dict[str, Any]


@dataclass
class Asked:
    method: str
    path: str
    fields: dict[str, str]
    headers: dict[str, str]


@dataclass
class StripeStub:
    """`with StripeStub() as stripe: stripe.url`. `answers` are given in place of the next ones, as (status, body)."""

    objects: dict[str, Fields] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    answers: list[tuple[int, Fields]] = field(default_factory=list)
    by_key: dict[str, tuple[dict[str, str], int, Fields]] = field(default_factory=dict)
    url: str = ""

    def __enter__(self) -> Self:
        self._numbers = itertools.count(1)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- What the customer, the bank and Stripe's dashboard do ------------------------------------------------------

    def pay(self, session_id: str, *, status: str = "paid", total: int | None = None) -> Fields:
        """Complete a session; `unpaid` is a bank debit under way. Returns the session."""
        session = self.objects[session_id]
        total = session["amount_total"] if total is None else total
        session |= {"status": "complete", "payment_status": status, "amount_total": total}
        if status != "no_payment_required":
            intent = self._intent(session["amount_total"], session["metadata"])
            session["payment_intent"] = intent["id"]
            if status == "paid":
                self.charge(intent["id"])
        return session

    def charge(self, intent_id: str) -> Fields:
        intent = self.objects[intent_id]
        charge = self._keep(
            "ch",
            {
                "object": "charge",
                "amount": intent["amount"],
                "amount_refunded": 0,
                "currency": intent["currency"],
                "metadata": intent["metadata"],
                "paid": True,
                "payment_intent": intent_id,
                "payment_method_details": {"type": "card", "card": {"brand": "visa", "last4": "4242"}},
                "refunded": False,
                "status": "succeeded",
            },
        )
        intent |= {"status": "succeeded", "amount_received": intent["amount"], "latest_charge": charge["id"]}
        return charge

    def refund(self, charge_id: str, amount: int) -> Fields:
        charge = self.objects[charge_id]
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        return self._keep(
            "re",
            {
                "object": "refund",
                "amount": amount,
                "charge": charge_id,
                "currency": charge["currency"],
                "payment_intent": charge["payment_intent"],
                "status": "succeeded",
            },
        )

    def dispute(self, charge_id: str, *, withdrawn: bool = True, reinstated: bool = False) -> Fields:
        """Return a dispute of the whole charge. As Stripe's, it names no customer and carries no metadata of ours."""
        charge = self.objects[charge_id]
        balances = [("dispute", withdrawn), ("dispute_reversal", reinstated)]
        return self._keep(
            "dp",
            {
                "object": "dispute",
                "amount": charge["amount"],
                "balance_transactions": [{"reporting_category": name} for name, is_there in balances if is_there],
                "charge": charge_id,
                "currency": charge["currency"],
                "metadata": {},
                "payment_intent": charge["payment_intent"],
                "reason": "fraudulent",
                "status": "needs_response",
            },
        )

    def event(self, kind: str, told: Fields, *, created: int | None = None) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of a webhook, signed as Stripe signs: HMAC-SHA-256 over `t.body`."""
        body = json.dumps(
            {
                "id": f"evt_{next(self._numbers)}",
                "object": "event",
                "api_version": "2026-10-28.endive",
                "created": created or int(time.time()),
                "data": {"object": told},
                "livemode": False,
                "pending_webhooks": 1,
                "request": {"id": None, "idempotency_key": None},
                "type": kind,
            },
            indent=2,
        ).encode()
        return body, {"stripe-signature": sign(body)}

    # --- The API ----------------------------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> tuple[int, Fields]:
        self.requests.append(asked)
        if self.answers:
            return self.answers.pop(0)
        key = asked.headers.get("idempotency-key", "") if asked.method == "POST" else ""
        if key in self.by_key:
            fields, status, body = self.by_key[key]
            if fields != asked.fields:
                text = "Keys for idempotent requests can only be used with the same parameters."
                return 400, {"error": {"type": "idempotency_error", "message": text}}
            return status, body
        status, body = self._act(asked)
        if key:
            self.by_key[key] = (asked.fields, status, body)
        return status, body

    def _act(self, asked: Asked) -> tuple[int, Fields]:
        parts = asked.path.removeprefix("/v1/").split("/")
        if asked.method == "GET":
            if parts[-1] in self.objects:
                return 200, self._expanded(parts[-1], asked)
            kinds = {"charges": "charge", "refunds": "refund", "disputes": "dispute", "sessions": "checkout.session"}
            kind = kinds.get(parts[-1])
            if kind:
                return 200, self._list(kind, asked.fields)
            return 404, {"error": {"type": "invalid_request_error", "message": f"No such object: {parts[-1]}"}}
        if parts == ["checkout", "sessions"]:
            return 200, self._session(asked.fields)
        if parts == ["payment_intents"]:
            return self._off_session(asked.fields)
        if parts == ["refunds"]:
            return 200, self._refund(asked.fields)
        return 404, {"error": {"type": "invalid_request_error", "message": "Unrecognized request URL"}}

    def _session(self, fields: dict[str, str]) -> Fields:
        amount = int(fields.get("line_items[0][price_data][unit_amount]", "0"))
        session = {
            "object": "checkout.session",
            "amount_total": amount or None,
            "currency": fields.get("line_items[0][price_data][currency]", "usd"),
            "customer": fields.get("customer") or ("cus_1" if fields["mode"] == "setup" else None),
            "metadata": {"reference": fields["metadata[reference]"]},
            "mode": fields["mode"],
            "payment_intent": None,
            "payment_status": "unpaid",
            "setup_intent": None,
            "status": "open",
            "url": f"https://checkout.stripe.com/c/pay/{next(self._numbers)}",
        }
        return self._keep("cs_test", session)

    def _off_session(self, fields: dict[str, str]) -> tuple[int, Fields]:
        metadata = {"reference": fields["metadata[reference]"], "origin": fields["metadata[origin]"]}
        intent = self._intent(int(fields["amount"]), metadata)
        if fields["payment_method"] == "pm_card_chargeDeclined":
            error = {"code": "card_declined", "message": "Your card was declined.", "type": "card_error"}
            intent |= {"status": "requires_payment_method", "last_payment_error": error}
            return 402, {"error": error | {"payment_intent": intent}}
        self.charge(intent["id"])
        return 200, intent

    def _refund(self, fields: dict[str, str]) -> Fields:
        refund = self.refund(fields["charge"], int(fields["amount"]))
        refund["metadata"] = {"refund": fields["metadata[refund]"]}
        return refund | {"charge": self.objects[fields["charge"]]}

    def _intent(self, amount: int, metadata: Fields) -> Fields:
        return self._keep(
            "pi",
            {
                "object": "payment_intent",
                "amount": amount,
                "amount_received": 0,
                "currency": "usd",
                "last_payment_error": None,
                "latest_charge": None,
                "metadata": metadata,
                "status": "processing",
            },
        )

    def _list(self, kind: str, fields: dict[str, str]) -> Fields:
        rows = [row for row in self.objects.values() if row["object"] == kind]
        for name in ("charge", "status"):
            rows = [row for row in rows if name not in fields or row[name] == fields[name]]
        rows = [row for row in rows if row["created"] >= int(fields.get("created[gte]", "0"))]
        rows = [row for row in rows if row["created"] < int(fields.get("created[lt]", str(2**60)))]
        after = fields.get("starting_after")
        ids = [row["id"] for row in rows]
        start = ids.index(after) + 1 if after else 0
        page = rows[start : start + 2]  # Small pages, so that a second one is asked for.
        if fields.get("expand[0]") == "data.charge":
            page = [row | {"charge": self.objects[row["charge"]]} for row in page]
        return {"object": "list", "data": page, "has_more": start + 2 < len(rows), "url": "/v1/x"}

    def _expanded(self, object_id: str, asked: Asked) -> Fields:
        found: Fields = dict(self.objects[object_id])
        for name, value in asked.fields.items():
            if name.startswith("expand") and found.get(value):
                found[value] = self.objects[str(found[value])]
        return found

    def _keep(self, prefix: str, fields: Fields) -> Fields:
        row: Fields = {"id": f"{prefix}_{next(self._numbers)}", "created": int(time.time()), "livemode": False} | fields
        self.objects[row["id"]] = row
        return row

    def keep(self, prefix: str, **fields: Any) -> Fields:
        """Keep any other object."""
        return self._keep(prefix, fields)


def sign(body: bytes, *, secret: str = WEBHOOK_SECRET, at: int | None = None) -> str:
    at = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest},v0=0000"


def _handler_of(stub: StripeStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET", dict(parse_qsl(urlsplit(self.path).query)))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            self._answer("POST", dict(parse_qsl(body)))

        def _answer(self, method: str, fields: dict[str, str]) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = stub.answer(Asked(method, urlsplit(self.path).path, fields, headers))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """What was asked is kept."""

    return Handler
