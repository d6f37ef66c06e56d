"""A provider that says over HTTP what is left on our account there, and what its models cost."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from billing.models import Upstream

CREDENTIAL = "upstream-credential"


class Provider:
    """Answers with what it is told, to whoever shows the credential."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_known = self.headers["authorization"] == f"Bearer {CREDENTIAL}"
                body = json.dumps(provider.answers.get(self.path)).encode()
                self.send_response(200 if is_known else 401)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def asked_provider(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """Let it be the upstream acme, whose balance and price list are asked for."""
    made = Provider()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    Upstream.objects.create(name="acme", protocol="messages", base_url=made.url, credential_env="ACME_API_KEY")
    monkeypatch.setenv("ACME_API_KEY", f"{CREDENTIAL},second")
    settings.PROVIDER_BALANCES = {"acme": made.url + "/credits"}
    settings.PRICE_LISTS = {"acme": made.url + "/models"}
    yield made
    made.server.shutdown()
    made.server.server_close()
