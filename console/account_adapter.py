"""How allauth signs people up and in here: whom it limits, where its mails lead, and what they are called.

Nobody can lock somebody else out: failures are counted for an address of the network, and for an account together with
such an address. A guess that is spread over many addresses meets a limit of the account alone; it does not bind a
browser from which that account has signed in before, which a signed cookie says.
"""

import hashlib
import logging
from smtplib import SMTPException
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.email_verification_by_code import EMAIL_VERIFICATION_CODE_SESSION_KEY
from allauth.account.internal.stagekit import clear_login
from allauth.core import context as allauth_context
from allauth.core import ratelimit
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import messages
from django.core.mail import EmailMultiAlternatives
from django.core.signing import BadSignature
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from accounts.key_secrets import end_lent_secrets
from accounts.members import has_confirmed
from accounts.models import User
from accounts.one_line import is_one_line
from accounts.request_credentials import client_address, customer_network
from pages.mail_parts import read_parts
from pages.publishing import publish_in_silence

KNOWN_BROWSER_COOKIE = "known_browser"
KNOWN_BROWSER_SALT = "accounts.known_browser"
KNOWN_BROWSER_SECONDS = 180 * 86_400
FAILURES_OF_AN_ACCOUNT = "sign_in_failed_anywhere"  # Its limit stands in ACCOUNT_RATE_LIMITS.
# Anybody may have these sent to any address, by forms that are open to all or to whoever signs up.
MAILS_BY_STRANGERS = "mail_by_strangers"  # Its limit stands there too.
STRANGERS_MAILS = frozenset(
    f"account/email/{name}"
    for name in (
        "account_already_exists",
        "email_confirmation",
        "email_confirmation_signup",
        "password_reset_key",
        "unknown_account",
    )
)
WAYS_BACK_IN = {"mfa_reauthenticate:webauthn": "Use a passkey or security key"}

logger = logging.getLogger(__name__)


class Site(NamedTuple):
    """What mails call this site and its address: as configured, whatever Host a request names."""

    name: str
    domain: str


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    error_messages: ClassVar[dict[str, Any]] = {
        **DefaultAccountAdapter.error_messages,
        "too_many_login_attempts": "Too many failed attempts to sign in. Wait a few minutes, or reset your password.",
    }

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the address that limits count by: the one that CROSSMODEL_TRUSTED_PROXIES vouch for."""
        return str(client_address(request.META) or "unknown")

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Refuse before the password is looked at. Raises a ValidationError."""
        super().pre_authenticate(request, **credentials)
        email = _email_of(credentials)
        if not _is_known_browser(request, email) and not self._count_failure(request, email, dry_run=True):
            raise self.validation_error("too_many_login_attempts")

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        self._count_failure(request, _email_of(credentials), dry_run=False)

    def post_login(self, request: HttpRequest, user: Any, **options: Any) -> HttpResponse:
        response: HttpResponse = super().post_login(request, user, **options)
        response.set_signed_cookie(
            KNOWN_BROWSER_COOKIE,
            _browser_mark(user.email),
            salt=KNOWN_BROWSER_SALT,
            max_age=KNOWN_BROWSER_SECONDS,
            path="/accounts/",
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
        return response

    def set_password(self, user: Any, password: str) -> None:
        """Set it; of an account whose address nobody has confirmed, no login of another company stays.

        Only a link that was mailed to the address leads here then. Whoever made the account before, with an address
        that was not theirs, would come in by such a login as soon as the address is confirmed.
        """
        if not has_confirmed(user, user.email):
            SocialAccount.objects.filter(user=user).delete()
        request = allauth_context.request
        if request is not None and not request.user.is_authenticated:
            # Who signed up with the address of their account waits for a code that nobody sent: they may sign in now.
            clear_login(request)
            request.session.pop(EMAIL_VERIFICATION_CODE_SESSION_KEY, None)
        super().set_password(user, password)

    def logout(self, request: HttpRequest) -> None:
        """Sign out, and end what was lent to the person's pages: no page goes on asking models."""
        if isinstance(request.user, User) and end_lent_secrets(request.user):
            publish_in_silence()
        super().logout(request)

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        """Return the ways by which one shows again who one is, in the words of the pages that lead there."""
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        return [{**each, "description": WAYS_BACK_IN.get(each["id"], each["description"])} for each in methods]

    def render_mail(self, *args: Any, **options: Any) -> EmailMultiAlternatives:
        """Return the mail as it is written, and beside it in the looks of this site."""
        message: EmailMultiAlternatives = super().render_mail(*args, **options)
        *parts, foot = read_parts(str(message.body))
        context = {"parts": parts, "foot": foot.text}
        message.attach_alternative(render_to_string("mail/account.html", context), "text/html")
        return message

    def format_email_subject(self, subject: str) -> str:
        return f"CrossModel: {subject}"

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send it, or say on the page that it could not be sent: what it was about can be asked for again.

        No mailbox is flooded by strangers, from however many addresses of the network they ask.
        """
        if not self._may_send(template_prefix, email):
            text = f"Many mails went to {email} within the last hour. Please wait before you ask for another one."
            messages.error(allauth_context.request, text)
            return
        site = Site("CrossModel", urlsplit(settings.BASE_URL).netloc)
        try:
            super().send_mail(template_prefix, email, {**context, "current_site": site, "base_url": settings.BASE_URL})
        except (OSError, SMTPException) as error:
            logger.error("Mail to %s could not be sent: %s", email, error)
            messages.error(
                allauth_context.request,
                f"The mail to {email} could not be sent. Please try again in a few minutes.",
            )

    def _may_send(self, template_prefix: str, email: str) -> bool:
        """Count a mail that a stranger can have sent, and say whether there was room for it."""
        request = allauth_context.request
        if template_prefix not in STRANGERS_MAILS or request is None:
            return True
        return bool(ratelimit.consume(request, action=MAILS_BY_STRANGERS, key=email.strip().lower()))

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Return what failures to sign in are counted for: an account together with the address that tries.

        The name is allauth's own; tests/console/test_sign_in_limits.py fails when it goes.
        """
        return f"{_network_of(request)} {_email_of(credentials)}"

    def _count_failure(self, request: HttpRequest, email: str, *, dry_run: bool) -> bool:
        """Count one failure of an account from anywhere, and say whether there was room for it."""
        return bool(ratelimit.consume(request, action=FAILURES_OF_AN_ACCOUNT, key=email, dry_run=dry_run))


class OutsideLoginAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    error_messages: ClassVar[dict[str, Any]] = {
        **DefaultSocialAccountAdapter.error_messages,
        "email_taken": "There is an account with this address. Sign in to it, then connect your %s login there.",
        "no_password": "Set a password first: without it and this login you could not sign in any more.",
        "disconnect_last": "This is your only way to sign in. Set a password first.",
        "connected_other": "This login belongs to another account already.",
    }

    def populate_user(self, request: HttpRequest, sociallogin: Any, data: dict[str, Any]) -> Any:
        """Take the name over, and one address: nobody keeps a second way in."""
        user = super().populate_user(request, sociallogin, data)
        name = " ".join(str(data.get("name") or "").split())[: user._meta.get_field("name").max_length]
        user.name = name if is_one_line(name) else ""
        ranked = sorted(sociallogin.email_addresses, key=lambda address: (not address.verified, not address.primary))
        sociallogin.email_addresses = ranked[:1]
        if ranked:
            user.email = ranked[0].email.lower()
        return user


def _network_of(request: HttpRequest) -> str:
    address = client_address(request.META)
    return "unknown" if address is None else customer_network(address)


def _email_of(credentials: dict[str, Any]) -> str:
    return str(credentials.get("email") or credentials.get("username") or "").strip().lower()


def _browser_mark(email: str) -> str:
    return hashlib.sha256(email.strip().lower().encode()).hexdigest()


def _is_known_browser(request: HttpRequest, email: str) -> bool:
    """Say whether this browser has signed in to that account before. It still has to know the password."""
    try:
        mark = request.get_signed_cookie(
            KNOWN_BROWSER_COOKIE, "", salt=KNOWN_BROWSER_SALT, max_age=KNOWN_BROWSER_SECONDS
        )
    except BadSignature:
        return False
    return mark == _browser_mark(email)
