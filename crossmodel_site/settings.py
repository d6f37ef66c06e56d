"""All settings of CrossModel. Every one has a default that works on one machine; docs/settings.md describes each.

An environment variable overrides its setting; a value that makes no sense stops the start with one line that names it.
"""

from email.utils import parseaddr
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from crossmodel_site.environment import (
    PRIVATE_NETWORKS,
    read_choice,
    read_env_file,
    read_flag,
    read_float,
    read_int,
    read_list,
    read_networks,
    read_origin,
    read_text,
    read_usd,
)
from crossmodel_site.production import production_problems

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(read_text("CROSSMODEL_DATA", str(BASE_DIR / "var"))).resolve()
# `make run` writes here where its own servers listen, so that commands typed in a second terminal find them.
EMBEDDED_SERVERS = read_env_file(DATA_DIR / "servers.env")

PRODUCTION = read_flag("CROSSMODEL_PRODUCTION", default=False)
DEBUG = False
SECRET_KEY = read_text("DJANGO_SECRET_KEY", EMBEDDED_SERVERS.get("DJANGO_SECRET_KEY", ""))
if not SECRET_KEY and not PRODUCTION:
    SECRET_KEY = "not-secret-used-only-where-nothing-is-served"  # noqa: S105  `make run` makes a real one.

HOST = read_text("CROSSMODEL_HOST", "127.0.0.1")
PORT = read_int("PORT", 8000, minimum=1, maximum=65535)
BASE_URL = read_origin("CROSSMODEL_BASE_URL", f"http://localhost:{PORT}")
ALLOWED_HOSTS = read_list("CROSSMODEL_ALLOWED_HOSTS", "" if PRODUCTION else "*")
CSRF_TRUSTED_ORIGINS = [BASE_URL]
ROOT_URLCONF = "crossmodel_site.urls"
ASGI_APPLICATION = "crossmodel_site.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "rest_framework",
    "drf_spectacular",
    "accounts",
    "billing",
    "gateway",
    "crossmodel_site",
]

MIDDLEWARE = [
    "crossmodel_site.pages.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "crossmodel_site.content_security_policy.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Postgres: the book of record -------------------------------------------------------------------------------


def read_database_url(url: str) -> dict[str, object]:
    """Return Django's DATABASES entry for `postgresql://user:password@host:port/name?option=value`."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(f"DATABASE_URL must start with postgresql://; it starts with {parts.scheme!r}.")
    name = unquote(parts.path.lstrip("/"))
    if not name:
        raise ImproperlyConfigured("DATABASE_URL names no database: postgresql://user:password@host:port/NAME.")
    try:
        port = parts.port or 5432
    except ValueError:
        raise ImproperlyConfigured("The port in DATABASE_URL is not a number.") from None
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", unquote(parts.hostname or "")),
        "PORT": port,
        "OPTIONS": {"connect_timeout": DATABASE_CONNECT_TIMEOUT_SECONDS, **options},
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }


DATABASE_CONNECT_TIMEOUT_SECONDS = read_int("CROSSMODEL_DATABASE_CONNECT_TIMEOUT_SECONDS", 5, minimum=1)
DATABASE_URL = read_text(
    "DATABASE_URL", EMBEDDED_SERVERS.get("DATABASE_URL", "postgresql://crossmodel@localhost:5432/crossmodel")
)
DATABASES = {"default": read_database_url(DATABASE_URL)}

# Threads that make pages and answers of `/api/`, in each process; each keeps one connection.
PAGE_THREADS = read_int("CROSSMODEL_PAGE_THREADS", 8, minimum=1, maximum=100)
# What sign-ins are limited by. It stands in Postgres, which every sign-in needs anyway, and works without Redis.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "accounts_shared_cache",
        "OPTIONS": {"MAX_ENTRIES": 100_000, "CULL_FREQUENCY": 10},
    }
}

# --- Redis: admission state, never the book of record ------------------------------------------------------------

REDIS_URL = read_text("REDIS_URL", EMBEDDED_SERVERS.get("REDIS_URL", "redis://localhost:6379/0"))
CELERY_BROKER_URL = read_text("CELERY_BROKER_URL", EMBEDDED_SERVERS.get("CELERY_BROKER_URL", REDIS_URL))
if "://" not in CELERY_BROKER_URL:
    raise ImproperlyConfigured("CELERY_BROKER_URL must be an address such as redis://localhost:6379/1.")

ADMISSION = {
    "redis_timeout_seconds": read_float("CROSSMODEL_REDIS_TIMEOUT_SECONDS", 0.25, minimum=0.01),
    "lease_seconds": read_float("CROSSMODEL_LEASE_SECONDS", 60.0, minimum=0.5),
    "heartbeat_seconds": read_float("CROSSMODEL_HEARTBEAT_SECONDS", 1.0, minimum=0.05),
    "reopen_seconds": read_float("CROSSMODEL_REOPEN_SECONDS", 3.0, minimum=0.1),
    "reaper_gap_seconds": read_float("CROSSMODEL_REAPER_GAP_SECONDS", 10.0, minimum=0.5),
}
MAX_WAITING_EVENTS = read_int("CROSSMODEL_MAX_WAITING_EVENTS", 100_000, minimum=1)

# --- Celery: triggers, never money -----------------------------------------------------------------------------

CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = "crossmodel"
PULSE_SECONDS = read_float("CROSSMODEL_PULSE_SECONDS", 1.0, minimum=0.05)
HOUSEKEEPING_SECONDS = read_float("CROSSMODEL_HOUSEKEEPING_SECONDS", 60.0, minimum=0.1)
CELERY_BEAT_SCHEDULER = "crossmodel_site.beat:Scheduler"
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
# A trigger that waited is worth nothing: a later one does its work. But the worker judges by its own clock, and if that
# differed from the sender's by more than this, no trigger would ever be carried out.
TRIGGER_EXPIRES_SECONDS = 2 * 3600
CELERY_BEAT_SCHEDULE = {
    "pulse": {
        "task": "billing.pulse",
        "schedule": PULSE_SECONDS,
        "options": {"expires": TRIGGER_EXPIRES_SECONDS},
    },
    "housekeeping": {
        "task": "billing.housekeeping",
        "schedule": HOUSEKEEPING_SECONDS,
        "options": {"expires": TRIGGER_EXPIRES_SECONDS},
    },
}

# --- The request path --------------------------------------------------------------------------------------------

GATEWAY = {
    "upstream_connect_seconds": read_float("CROSSMODEL_UPSTREAM_CONNECT_SECONDS", 10.0, minimum=0.1),
    "upstream_first_byte_seconds": read_float("CROSSMODEL_UPSTREAM_FIRST_BYTE_SECONDS", 600.0, minimum=0.1),
    "upstream_idle_seconds": read_float("CROSSMODEL_UPSTREAM_IDLE_SECONDS", 300.0, minimum=0.1),
    "request_total_seconds": read_float("CROSSMODEL_REQUEST_TOTAL_SECONDS", 3600.0, minimum=1),
    "ping_seconds": read_float("CROSSMODEL_PING_SECONDS", 12.0, minimum=0.1),
    "settle_bound_seconds": read_float("CROSSMODEL_SETTLE_BOUND_SECONDS", 2.0, minimum=0.05),
    "spool_retention_seconds": read_float("CROSSMODEL_SPOOL_RETENTION_SECONDS", 7 * 86400.0),
    "catalog_refresh_seconds": read_float("CROSSMODEL_CATALOG_REFRESH_SECONDS", 5.0, minimum=0.1),
    "client_stall_seconds": read_float("CROSSMODEL_CLIENT_STALL_SECONDS", 300.0, minimum=0.1),
    "drain_seconds": read_float("CROSSMODEL_DRAIN_SECONDS", 600.0),
}
MAX_BODY_BYTES = 32 * 1024 * 1024
# Bodies in memory at once, in each process; one key may take half of it.
MAX_BODY_ROOM_BYTES = read_int("CROSSMODEL_MAX_BODY_ROOM_BYTES", 1024**3, minimum=2 * MAX_BODY_BYTES)
MAX_CONNECTIONS = read_int("CROSSMODEL_MAX_CONNECTIONS", 50_000, minimum=10)
MAX_CONNECTIONS_PER_ADDRESS = read_int("CROSSMODEL_MAX_CONNECTIONS_PER_ADDRESS", 20_000, minimum=1)
# Origins of browser apps that may call `/v1/`, such as https://app.example.org; * is all of them.
BROWSER_ORIGINS = read_list("CROSSMODEL_BROWSER_ORIGINS")
BYTES_PER_INPUT_TOKEN = read_int("CROSSMODEL_BYTES_PER_INPUT_TOKEN", 2, minimum=1, maximum=8)
SPOOL_MAX_BYTES = read_int("CROSSMODEL_SPOOL_MAX_BYTES", 1024**3, minimum=4096)
MAX_DRAINING_REQUESTS = read_int("CROSSMODEL_MAX_DRAINING_REQUESTS", 1000, minimum=0)
# An upstream that fails this often within half a minute, and half of its calls, is left alone for a while.
BREAKER_FAILURES = read_int("CROSSMODEL_BREAKER_FAILURES", 5, minimum=1)
# Requests that cost nothing have limits of their own, per key and minute.
COUNT_TOKENS_PER_MINUTE = read_int("CROSSMODEL_COUNT_TOKENS_PER_MINUTE", 2_000, minimum=1)
LIST_MODELS_PER_MINUTE = read_int("CROSSMODEL_LIST_MODELS_PER_MINUTE", 600, minimum=1)
REQUEST_LOG = read_flag("CROSSMODEL_REQUEST_LOG", default=True)
TRUSTED_PROXIES = read_networks("CROSSMODEL_TRUSTED_PROXIES")
CATALOG_FILE = read_text("CROSSMODEL_CATALOG", str(BASE_DIR / "billing" / "catalog" / "default.toml"))
# What operators who edit upstreams may make the gateway send, and where to: see billing/catalog/variables.py and
# gateway/upstreams/addresses.py.
UPSTREAM_VARIABLES = read_list("CROSSMODEL_UPSTREAM_VARIABLES", "*_API_KEY,*_API_KEYS,UPSTREAM_*")
UPSTREAM_NETWORKS = read_networks("CROSSMODEL_UPSTREAM_NETWORKS", "" if PRODUCTION else PRIVATE_NETWORKS)
SANDBOX_URL = read_text("CROSSMODEL_SANDBOX_URL", EMBEDDED_SERVERS.get("CROSSMODEL_SANDBOX_URL", ""))

# --- Credit --------------------------------------------------------------------------------------------------------

# Every new organization starts with this much promotional credit. USD, as a decimal string.
WELCOME_CREDIT_USD = read_usd("CROSSMODEL_WELCOME_CREDIT_USD", "0" if PRODUCTION else "5", maximum_usd=10_000)
DEFAULT_REQUESTS_PER_MINUTE = read_int("CROSSMODEL_DEFAULT_REQUESTS_PER_MINUTE", 600, minimum=1)
DEFAULT_CONCURRENT_REQUESTS = read_int("CROSSMODEL_DEFAULT_CONCURRENT_REQUESTS", 100, minimum=1)

# How mail may be sent to CROSSMODEL_EMAIL_HOST, with the port of each.
EMAIL_PORTS = {"none": 25, "starttls": 587, "tls": 465}

# --- People ----------------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
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
ACCOUNT_ADAPTER = "accounts.adapters.AccountAdapter"
# One address a login, which changes once the new one is confirmed: nobody keeps a second way in.
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
# Counted in CACHES, so by all processes together. accounts/adapters.py says whose failures count for whom.
ACCOUNT_RATE_LIMITS = {
    "login": "30/m/ip",
    "login_failed": "20/m/ip,5/5m/key",
    "sign_in_failed_anywhere": "100/h/key",
}
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/console/"
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BASE_URL.startswith("https://")
if BASE_URL.startswith("https://"):
    # TLS ends at the proxy in front, which says so (deploy/nginx.conf); the server's own proxy headers are off.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
if PRODUCTION:
    SECURE_SSL_REDIRECT = True
    SECURE_SSL_HOST = BASE_URL.removeprefix("https://")
    SECURE_HSTS_SECONDS = 365 * 86_400
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
# Entering a domain into browsers' preload lists is its owner's decision, and hard to take back.
SILENCED_SYSTEM_CHECKS = ["security.W021"]
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"

EMAIL_HOST = read_text("CROSSMODEL_EMAIL_HOST")
EMAIL_BACKEND = "django.core.mail.backends." + ("smtp" if EMAIL_HOST else "filebased") + ".EmailBackend"
EMAIL_SECURITY = read_choice("CROSSMODEL_EMAIL_SECURITY", "none", tuple(EMAIL_PORTS))
EMAIL_PORT = read_int("CROSSMODEL_EMAIL_PORT", EMAIL_PORTS[EMAIL_SECURITY], minimum=1, maximum=65535)
EMAIL_USE_TLS, EMAIL_USE_SSL = EMAIL_SECURITY == "starttls", EMAIL_SECURITY == "tls"
EMAIL_HOST_USER = read_text("CROSSMODEL_EMAIL_USER")
EMAIL_HOST_PASSWORD = read_text("CROSSMODEL_EMAIL_PASSWORD")
EMAIL_TIMEOUT = read_int("CROSSMODEL_EMAIL_TIMEOUT_SECONDS", 10, minimum=1)
EMAIL_FILE_PATH = str(DATA_DIR / "mail")
DEFAULT_FROM_EMAIL = SERVER_EMAIL = read_text("CROSSMODEL_FROM_EMAIL", "CrossModel <no-reply@localhost>")
if "@" not in parseaddr(DEFAULT_FROM_EMAIL)[1]:
    raise ImproperlyConfigured(f"CROSSMODEL_FROM_EMAIL must hold an address; it is {DEFAULT_FROM_EMAIL!r}.")

# --- Pages, API and logs -------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Files are served from where they are: there is no folder of copies, and nothing to collect.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "UNAUTHENTICATED_USER": None,
    "EXCEPTION_HANDLER": "billing.api_errors.answer_exception",
}
SPECTACULAR_SETTINGS = {"TITLE": "CrossModel API", "VERSION": "1", "SERVE_INCLUDE_SCHEMA": False}

UNFOLD = {
    "SITE_TITLE": "CrossModel",
    "SITE_HEADER": "CrossModel",
    "SITE_SUBHEADER": "Operations",
    "SITE_ICON": lambda request: static("icon.svg"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("icon.svg")}],
    "DASHBOARD_CALLBACK": "billing.operations.add_dashboard",
    "COLORS": {
        # The green of static/crossmodel.css.
        "primary": {
            "50": "#eef8f3",
            "100": "#d8efe4",
            "200": "#b2dfc9",
            "300": "#83c8a8",
            "400": "#52ab86",
            "500": "#2f8f6b",
            "600": "#17694c",
            "700": "#0f543b",
            "800": "#0d4432",
            "900": "#0b382a",
            "950": "#052018",
        }
    },
}

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {
            "()": "crossmodel_site.logs.LineFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
        }
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "plain"},
        "nowhere": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["console"], "level": read_choice("CROSSMODEL_LOG_LEVEL", "INFO", LOG_LEVELS)},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "celery": {"level": "WARNING"},
        # In place of its own handlers, which write what they get. The request path has a line of its own a request.
        "uvicorn": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        "uvicorn.access": {"handlers": [], "propagate": False},
        "django.request": {"level": "ERROR"},
        # Whoever sends a host that is not ours would fill the log with stack traces.
        "django.security.DisallowedHost": {"handlers": ["nowhere"], "propagate": False},
    },
}

if PRODUCTION and (problems := production_problems(globals())):
    raise ImproperlyConfigured(
        "This is no production installation yet:\n" + "\n".join(f"- {line}" for line in problems)
    )
