"""An SMTP server of a test's own: takes every message, over TLS where asked, and notes who signed in."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from crossmodel_site.embedded.ports import find_free_port

HOST = "localhost"
READY_SECONDS = 15.0


class MailServer:
    """`security` is none, starttls or tls. `messages` holds what came, `logins` the names and passwords that signed in.

    with MailServer(tmp_path, security="tls") as server:
        server.port, server.certificate_path ...
    """

    def __init__(self, folder: Path, *, security: str) -> None:
        self.messages: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.certificate_path = folder / "certificate.pem"
        tls = make_certificate(self.certificate_path)
        self.port = find_free_port()
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            ready_timeout=READY_SECONDS,
            ssl_context=tls if security == "tls" else None,
            tls_context=tls if security == "starttls" else None,
            require_starttls=security == "starttls",
            auth_require_tls=False,
            authenticator=self._sign_in,
        )

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's name
        assert isinstance(envelope.content, bytes)
        self.messages.append(envelope.content.decode())
        return "250 ok"

    def _sign_in(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: LoginPassword
    ) -> AuthResult:
        self.logins.append((given.login.decode(), given.password.decode()))
        return AuthResult(success=True)


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
