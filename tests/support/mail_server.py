"""A small SMTP server of a test's own: takes every message, over TLS where asked, and notes who signed in."""

import base64
import socketserver
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOST = "localhost"


class MailServer:
    """`security` is none, starttls or tls. `messages` holds what came, `logins` the names and passwords that signed in.

    with MailServer(tmp_path, security="tls") as server:
        server.port, server.certificate_path ...
    """

    def __init__(self, folder: Path, *, security: str) -> None:
        self.security = security
        self.messages: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.certificate_path = folder / "certificate.pem"
        self.tls = make_certificate(self.certificate_path)
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                Conversation(outer, self).run()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Conversation:
    def __init__(self, server: MailServer, handler: socketserver.StreamRequestHandler) -> None:
        self._server = server
        self._handler = handler
        self._is_encrypted = False

    def run(self) -> None:
        if self._server.security == "tls":
            self._encrypt()
        self._say("220 test")
        while line := self._handler.rfile.readline().decode().strip():
            verb, _, rest = line.partition(" ")
            if verb.upper() == "QUIT":
                self._say("221 bye")
                return
            self._answer(verb.upper(), rest)

    def _answer(self, verb: str, rest: str) -> None:
        if verb == "EHLO":
            offers = ["STARTTLS"] if self._server.security == "starttls" and not self._is_encrypted else ["AUTH PLAIN"]
            self._say("\r\n".join(["250-test", *(f"250 {offer}" for offer in offers)]))
        elif verb == "STARTTLS":
            self._say("220 go on")
            self._encrypt()
        elif verb == "AUTH":
            _, name, password = base64.b64decode(rest.split()[1]).decode().split("\0")
            self._server.logins.append((name, password))
            self._say("235 ok")
        elif verb == "DATA":
            self._say("354 go on")
            lines = iter(self._handler.rfile.readline, b".\r\n")
            self._server.messages.append(b"".join(lines).decode())
            self._say("250 ok")
        else:
            self._say("250 ok")

    def _say(self, line: str) -> None:
        self._handler.wfile.write(line.encode() + b"\r\n")
        self._handler.wfile.flush()

    def _encrypt(self) -> None:
        encrypted = self._server.tls.wrap_socket(self._handler.connection, server_side=True)
        self._handler.rfile, self._handler.wfile = encrypted.makefile("rb"), encrypted.makefile("wb")
        self._is_encrypted = True


def make_certificate(path: Path) -> ssl.SSLContext:
    """Write a certificate for HOST that vouches for itself to `path`, and return what a server needs to show it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path = path.with_suffix(".key")
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context
