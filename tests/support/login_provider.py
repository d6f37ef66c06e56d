"""An OpenID provider of a test's own, over real HTTP: discovery, PKCE, an ID token with a real signature, its keys.

`claims` is what it says of whoever signs in there. It asks nobody for a password.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

CLIENT_ID, CLIENT_SECRET = "crossmodel", "a secret of a test"
KEY_ID = "first"
LIFETIME_SECONDS = 300


@dataclass
class LoginProvider:
    """with LoginProvider() as provider: provider.url, provider.claims = {"sub": "1", "email": ...}."""

    claims: dict[str, Any] = field(default_factory=dict)
    # What the ID token says in place of the truth.
    forged: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)  # For a sign-in.
    refused: list[str] = field(default_factory=list)  # Why no token was given.

    def __post_init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._codes: dict[str, dict[str, str]] = {}
        self._server = ThreadingHTTPServer(("localhost", 0), _handler_of(self))
        self.url = f"http://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def describe(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
        }

    def keys(self) -> dict[str, Any]:
        key = json.loads(RSAAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [{**key, "kid": KEY_ID, "use": "sig", "alg": "RS256"}]}

    def authorize(self, query: dict[str, str]) -> str:
        """Return where the browser goes back to, with a code that works once."""
        self.asked.append(query)
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def give_token(self, form: dict[str, str]) -> dict[str, Any] | None:
        asked = self._codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None:
            self.refused.append("code")
        elif challenge.rstrip(b"=").decode() != asked.get("code_challenge"):
            self.refused.append("code_verifier")
        elif (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            self.refused.append("client")
        else:
            now = int(time.time())
            token = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + LIFETIME_SECONDS, **self.claims}
            signed = jwt.encode({**token, **self.forged}, self._key, algorithm="RS256", headers={"kid": KEY_ID})
            return {"access_token": "opaque", "token_type": "Bearer", "expires_in": 300, "id_token": signed}
        return None


def _handler_of(provider: LoginProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path == "/authorize":
                self.send_response(302)
                self.send_header("location", provider.authorize(query))
                self.send_header("content-length", "0")
                self.end_headers()
            elif parts.path == "/.well-known/openid-configuration":
                self._say(200, provider.describe())
            elif parts.path == "/keys":
                self._say(200, provider.keys())
            elif parts.path == "/userinfo":
                self._say(200, provider.claims)
            else:
                self._say(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            given = provider.give_token({name: values[0] for name, values in parse_qs(body).items()})
            self._say(400 if given is None else 200, given or {"error": "invalid_grant"})

        def log_message(self, *_: object) -> None:
            pass

        def _say(self, status: int, said: dict[str, Any]) -> None:
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
