"""Settings of people: how they sign up and in, by a password, a second factor, a passkey or another company's login.

crossmodel_site/settings.py takes all of them over.
"""

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from crossmodel_site.environment import read_origin, read_text

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "accounts.staff_roles.StaffRoleBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
# By a code that works only where the person signs up: a click of the address's owner confirms nobody else's account.
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = True
ACCOUNT_ADAPTER = "console.account_adapter.AccountAdapter"
ACCOUNT_FORMS = {
    "login": "console.forms.account.SignInForm",
    "signup": "console.forms.account.SignUpForm",
    "change_password": "console.forms.account.ChangePasswordForm",
    "reset_password": "console.forms.account.ResetPasswordForm",
    "reset_password_from_key": "console.forms.account.NewPasswordForm",
}
# One address a login, which changes once the new one is confirmed: nobody keeps a second way in.
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
# Whoever finds a browser open changes neither the address, which leads to a new password, nor what else lets people in.
ACCOUNT_REAUTHENTICATION_REQUIRED = True
# Counted in CACHES, so by all processes together. console/account_adapter.py says whose failures count for whom.
ACCOUNT_RATE_LIMITS = {
    "login": "30/m/ip",
    "login_failed": "20/m/ip,5/5m/key",
    "sign_in_failed_anywhere": "100/h/key",
    "mail_by_strangers": "10/h/key",
}
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/console/"
ACCOUNT_LOGOUT_REDIRECT_URL = "/"

# --- Second factor and passkeys ------------------------------------------------------------------------------------

MFA_ADAPTER = "console.second_factor.SecondFactorAdapter"
MFA_FORMS = {"add_webauthn": "console.forms.account.AddPasskeyForm"}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "CrossModel"
MFA_TOTP_TOLERANCE = 1  # Steps of 30 seconds that a phone's clock may be off.
# When they are made, and never again.
MFA_RECOVERY_CODES_SHOW_ONCE = True

# --- Logins of other companies: each is off until its client id is set ------------------------------------------------

GOOGLE_CLIENT_ID = read_text("CROSSMODEL_GOOGLE_CLIENT_ID")
GOOGLE_CLIENT_SECRET = read_text("CROSSMODEL_GOOGLE_CLIENT_SECRET")
GITHUB_CLIENT_ID = read_text("CROSSMODEL_GITHUB_CLIENT_ID")
GITHUB_CLIENT_SECRET = read_text("CROSSMODEL_GITHUB_CLIENT_SECRET")
OIDC_CLIENT_ID = read_text("CROSSMODEL_OIDC_CLIENT_ID")
OIDC_CLIENT_SECRET = read_text("CROSSMODEL_OIDC_CLIENT_SECRET")
OIDC_ISSUER = read_text("CROSSMODEL_OIDC_ISSUER")
# What it says of people is believed because it is its server that says it: TLS vouches for that.
if OIDC_ISSUER and not OIDC_ISSUER.startswith(("https://", "http://localhost:")):
    raise ImproperlyConfigured(f"CROSSMODEL_OIDC_ISSUER must begin with https://; it is {OIDC_ISSUER!r}.")
OIDC_NAME = read_text("CROSSMODEL_OIDC_NAME", "Single sign-on")
# Where its sign-in page is, when that is not where the issuer is.
OIDC_ORIGIN = read_origin("CROSSMODEL_OIDC_ORIGIN", "/".join(OIDC_ISSUER.split("/")[:3])) if OIDC_ISSUER else ""

SOCIALACCOUNT_FORMS = {"signup": "console.forms.account.OutsideSignUpForm"}
SOCIALACCOUNT_ADAPTER = "console.account_adapter.OutsideLoginAdapter"
# What another company says of an address counts where it vouches for it; it never opens an account that is there
# already: its owner connects the two when signed in.
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_LOGIN_ON_GET = False
SOCIALACCOUNT_PROVIDERS: dict[str, dict[str, Any]] = {}
SIGN_IN_APPS: list[str] = []
# Where the form that leads to another company's login ends, for the policy that browsers hold pages to.
SIGN_IN_ORIGINS: list[str] = []


def _offer(provider: str, *, client: tuple[str, str], origin: str, app: dict[str, Any], **options: Any) -> None:
    """Offer a login, if it is configured. Raises ImproperlyConfigured when only half of it is."""
    client_id, secret = client
    if not client_id and not secret:
        return
    if not client_id or not secret or not origin:
        raise ImproperlyConfigured(f"The login of {provider} needs a client id, a client secret and an address.")
    SOCIALACCOUNT_PROVIDERS[provider] = {"APPS": [{"client_id": client_id, "secret": secret, **app}], **options}
    SIGN_IN_APPS.append(f"allauth.socialaccount.providers.{provider}")
    SIGN_IN_ORIGINS.append(origin)


_offer(
    "google",
    client=(GOOGLE_CLIENT_ID, GOOGLE_CLIENT_SECRET),
    origin="https://accounts.google.com",
    app={},
    SCOPE=["profile", "email"],
    OAUTH_PKCE_ENABLED=True,
)
_offer(
    "github",
    client=(GITHUB_CLIENT_ID, GITHUB_CLIENT_SECRET),
    origin="https://github.com",
    app={},
    SCOPE=["user:email"],
)
_offer(
    "openid_connect",
    client=(OIDC_CLIENT_ID, OIDC_CLIENT_SECRET),
    origin=OIDC_ORIGIN,
    app={"provider_id": "oidc", "name": OIDC_NAME, "settings": {"server_url": OIDC_ISSUER}},
    OAUTH_PKCE_ENABLED=True,
)
