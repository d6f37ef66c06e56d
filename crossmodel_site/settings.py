"""All settings of CrossModel. Every one has a default that works on one machine; docs/settings.md describes each.

An environment variable overrides its setting; a value that makes no sense stops the start with one line that names it.
"""

import os
from email.utils import parseaddr
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from billing.admission.settings import AdmissionSettings
from crossmodel_site import admin_theme, api_settings, logs
from crossmodel_site.embedded.libpq import forget_variables_of_libpq
from crossmodel_site.environment import (
    PRIVATE_NETWORKS,
    database_entry,
    read_alone_limits,
    read_choice,
    read_countries,
    read_env_file,
    read_flag,
    read_float,
    read_int,
    read_list,
    read_networks,
    read_origin,
    read_pairs,
    read_tax_rates,
    read_text,
    read_usd,
)
from crossmodel_site.payment_settings import payment_problems
from crossmodel_site.people_settings import *  # noqa: F403  They are settings, each of them.
from crossmodel_site.people_settings import SIGN_IN_APPS
from crossmodel_site.production import production_problems
from gateway.settings import GatewaySettings

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(read_text("CROSSMODEL_DATA", str(BASE_DIR / "var"))).resolve()
# `make run` writes here where its own servers listen, so that commands typed in a second terminal find them.
EMBEDDED_SERVERS = read_env_file(DATA_DIR / "servers.env")

PRODUCTION = read_flag("CROSSMODEL_PRODUCTION", default=False)
DEBUG = False
SECRET_KEY = read_text("DJANGO_SECRET_KEY", EMBEDDED_SERVERS.get("DJANGO_SECRET_KEY", ""))
if not SECRET_KEY and not PRODUCTION:
    SECRET_KEY = "not-secret-used-only-where-nothing-is-served"  # noqa: S105  `make run` makes a real one.

# Signing keys of before: what they signed is still taken, what they sealed is still read, until it is sealed again.
SECRET_KEY_FALLBACKS = read_list("DJANGO_SECRET_KEY_FALLBACKS")
HOST = read_text("CROSSMODEL_HOST", "127.0.0.1")
PORT = read_int("PORT", 8000, minimum=1, maximum=65535)
BASE_URL = read_origin("CROSSMODEL_BASE_URL", f"http://localhost:{PORT}")
ALLOWED_HOSTS = read_list("CROSSMODEL_ALLOWED_HOSTS", "" if PRODUCTION else "*")
CSRF_TRUSTED_ORIGINS = [BASE_URL]
CSRF_FAILURE_VIEW = "console.views.kept_form.page_expired"
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
    "django_htmx",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.usersessions",
    *SIGN_IN_APPS,
    "rest_framework",
    "drf_spectacular",
    "accounts",
    "billing",
    "pages",
    "console",
    "api",
    "operations",
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
    "crossmodel_site.error_pages.MethodPageMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "crossmodel_site.audit.AuditMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "operations.second_factor.StaffSecondFactorMiddleware",
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

DATABASE_CONNECT_TIMEOUT_SECONDS = read_int("CROSSMODEL_DATABASE_CONNECT_TIMEOUT_SECONDS", 5, minimum=1)
DATABASE_URL = read_text(
    "DATABASE_URL", EMBEDDED_SERVERS.get("DATABASE_URL", "postgresql://crossmodel@localhost:5432/crossmodel")
)
if EMBEDDED_SERVERS.get("DATABASE_URL") == DATABASE_URL:
    forget_variables_of_libpq()
DATABASES = {"default": database_entry(DATABASE_URL, DATABASE_CONNECT_TIMEOUT_SECONDS)}
# A copy of it that follows by streaming, for pages that show past usage; billing/read_replica.py says for what.
REPLICA_URL = read_text("CROSSMODEL_REPLICA_URL", "")
REPLICA_MAX_LAG_SECONDS = read_float("CROSSMODEL_REPLICA_MAX_LAG_SECONDS", 10.0, minimum=0.1)
REPLICA_CONNECT_TIMEOUT_SECONDS = 2  # Pages wait for it, and can do without.
if REPLICA_URL:
    DATABASES["replica"] = database_entry(REPLICA_URL, REPLICA_CONNECT_TIMEOUT_SECONDS)

# Who makes pages and answers of `/api/`: "here" this process beside `/v1/`, "only" this one and it serves nothing else,
# "elsewhere" others, to which a load balancer sends them; or the Unix socket of a process that they are passed on to.
PAGES = read_text("CROSSMODEL_PAGES", "here")
if PAGES not in ("here", "only", "elsewhere") and not PAGES.startswith("/"):
    raise ImproperlyConfigured(f"CROSSMODEL_PAGES must be here, only, elsewhere or a path; it is {PAGES!r}.")
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

ADMISSION = AdmissionSettings(
    redis_timeout_seconds=read_float("CROSSMODEL_REDIS_TIMEOUT_SECONDS", 0.25, minimum=0.01),
    lease_seconds=read_float("CROSSMODEL_LEASE_SECONDS", 60.0, minimum=0.5),
    heartbeat_seconds=read_float("CROSSMODEL_HEARTBEAT_SECONDS", 1.0, minimum=0.05),
    reopen_seconds=read_float("CROSSMODEL_REOPEN_SECONDS", 3.0, minimum=0.1),
    reaper_gap_seconds=read_float("CROSSMODEL_REAPER_GAP_SECONDS", 10.0, minimum=0.5),
)
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
ALERT_SECONDS = read_float("CROSSMODEL_ALERT_SECONDS", 60.0, minimum=0.1)
COURIER_SECONDS = read_float("CROSSMODEL_COURIER_SECONDS", 2.0, minimum=0.1)
PAYMENT_SECONDS = read_float("CROSSMODEL_PAYMENT_SECONDS", 60.0, minimum=0.1)
DOCUMENTS_SECONDS = read_float("CROSSMODEL_DOCUMENTS_SECONDS", 600.0, minimum=0.1)
CELERY_BEAT_SCHEDULER = "crossmodel_site.beat:Scheduler"
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
# A trigger that waited is worth nothing: a later one does its work. But the worker judges by its own clock, and if that
# differed from the sender's by more than this, no trigger would ever be carried out.
TRIGGER_EXPIRES_SECONDS = 2 * 3600
CELERY_BEAT_SCHEDULE = {
    task: {"task": f"billing.{task}", "schedule": seconds, "options": {"expires": TRIGGER_EXPIRES_SECONDS}}
    for task, seconds in {
        "pulse": PULSE_SECONDS,
        "housekeeping": HOUSEKEEPING_SECONDS,
        "traffic": HOUSEKEEPING_SECONDS,
        "alerts": ALERT_SECONDS,
        "catalog_alerts": 3600.0,
        "courier": COURIER_SECONDS,
        "reconcile": 3600.0,
        "ledger_check": 3600.0,
        "reratings": HOUSEKEEPING_SECONDS,
        "documents": DOCUMENTS_SECONDS,
        "payments": PAYMENT_SECONDS,
        "payment_lists": 3600.0,
        "retention": 3600.0,
        "provider_balances": 600.0,
        "traffic_check": 6 * 3600.0,
        "price_drift": 6 * 3600.0,
    }.items()
}

# --- The request path --------------------------------------------------------------------------------------------

GATEWAY = GatewaySettings(
    upstream_connect_seconds=read_float("CROSSMODEL_UPSTREAM_CONNECT_SECONDS", 10.0, minimum=0.1),
    upstream_first_byte_seconds=read_float("CROSSMODEL_UPSTREAM_FIRST_BYTE_SECONDS", 600.0, minimum=0.1),
    upstream_idle_seconds=read_float("CROSSMODEL_UPSTREAM_IDLE_SECONDS", 300.0, minimum=0.1),
    request_total_seconds=read_float("CROSSMODEL_REQUEST_TOTAL_SECONDS", 3600.0, minimum=1),
    ping_seconds=read_float("CROSSMODEL_PING_SECONDS", 12.0, minimum=0.1),
    close_bound_seconds=read_float("CROSSMODEL_SETTLE_BOUND_SECONDS", 2.0, minimum=0.05),
    spool_retention_seconds=read_float("CROSSMODEL_SPOOL_RETENTION_SECONDS", 7 * 86400.0),
    catalog_refresh_seconds=read_float("CROSSMODEL_CATALOG_REFRESH_SECONDS", 5.0, minimum=0.1),
    client_stall_seconds=read_float("CROSSMODEL_CLIENT_STALL_SECONDS", 300.0, minimum=0.1),
    drain_seconds=read_float("CROSSMODEL_DRAIN_SECONDS", 600.0),
)
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
# Where the processes of one machine keep what they count; prometheus-client reads the variable when it is imported.
METRICS_DIR = read_text("CROSSMODEL_METRICS_DIR")
if METRICS_DIR:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = METRICS_DIR
METRICS_NETWORKS = read_networks("CROSSMODEL_METRICS_NETWORKS", "127.0.0.0/8,::1")
METRICS_TOKEN = read_text("CROSSMODEL_METRICS_TOKEN")
# Where spans go, as OTLP over HTTP; none are made without it. The part of traces that is recorded, chosen by their id.
TRACES_URL = read_text("CROSSMODEL_TRACES_URL")
TRACES_RATIO = read_float("CROSSMODEL_TRACES_RATIO", 0.05, minimum=0.0, maximum=1.0)
# Where GitHub publishes the keys that it signs with, when it tells of keys of ours that are public.
SECRET_SCANNING_URL = read_text("CROSSMODEL_SECRET_SCANNING_URL")
TRUSTED_PROXIES = read_networks("CROSSMODEL_TRUSTED_PROXIES")
CATALOG_FILE = read_text("CROSSMODEL_CATALOG", str(BASE_DIR / "billing" / "catalog" / "default.toml"))
# What operators who edit upstreams may make the gateway send, and where to: see billing/catalog/variables.py and
# gateway/http/addresses.py.
UPSTREAM_VARIABLES = read_list("CROSSMODEL_UPSTREAM_VARIABLES", "*_API_KEY,*_API_KEYS,UPSTREAM_*")
UPSTREAM_NETWORKS = read_networks("CROSSMODEL_UPSTREAM_NETWORKS", "" if PRODUCTION else PRIVATE_NETWORKS)
# Where customers' webhooks may lead beside public addresses: see billing/network_addresses.py.
WEBHOOK_NETWORKS = read_networks("CROSSMODEL_WEBHOOK_NETWORKS", "" if PRODUCTION else "127.0.0.0/8,::1")
WEBHOOK_ALLOWS_HTTP = not PRODUCTION
# Upstreams whose provider reports usage and cost, each with the variable that holds its admin key.
PROVIDER_REPORTS = read_pairs("CROSSMODEL_PROVIDER_REPORTS")
# Upstreams whose provider says what is left on our account, and its price list, with the address of each.
PROVIDER_BALANCES = read_pairs("CROSSMODEL_PROVIDER_BALANCES")
PROVIDER_BALANCE_LOW_USD = read_usd("CROSSMODEL_PROVIDER_BALANCE_LOW_USD", "100", maximum_usd=10**9)
PRICE_LISTS = read_pairs("CROSSMODEL_PRICE_LISTS")
SANDBOX_URL = read_text("CROSSMODEL_SANDBOX_URL", EMBEDDED_SERVERS.get("CROSSMODEL_SANDBOX_URL", ""))

# --- Credit --------------------------------------------------------------------------------------------------------

# Every new organization starts with this much promotional credit. USD, as a decimal string.
WELCOME_CREDIT_USD = read_usd("CROSSMODEL_WELCOME_CREDIT_USD", "0" if PRODUCTION else "5", maximum_usd=10_000)
DEFAULT_REQUESTS_PER_MINUTE = read_int("CROSSMODEL_DEFAULT_REQUESTS_PER_MINUTE", 600, minimum=1)
DEFAULT_CONCURRENT_REQUESTS = read_int("CROSSMODEL_DEFAULT_CONCURRENT_REQUESTS", 100, minimum=1)

# What one operator moves alone in a day, by staff role; above it a second one approves. USD, as decimal strings.
ALONE_USD = read_alone_limits("CROSSMODEL_ALONE_USD", "support=20, finance=500, operations=0, superuser=500")
# A credit limit above this is never one person's.
CREDIT_LIMIT_BOUND_USD = read_usd("CROSSMODEL_CREDIT_LIMIT_BOUND_USD", "1000", maximum_usd=1_000_000)

# --- Payments ------------------------------------------------------------------------------------------------------

# What one top-up may be. USD, as decimal strings.
MIN_TOP_UP_USD = read_usd("CROSSMODEL_MIN_TOP_UP_USD", "5", maximum_usd=10_000)
MAX_TOP_UP_USD = read_usd("CROSSMODEL_MAX_TOP_UP_USD", "10000", maximum_usd=1_000_000)
PAYMENT_SANDBOX_URL = read_text(
    "CROSSMODEL_PAYMENT_SANDBOX_URL", EMBEDDED_SERVERS.get("CROSSMODEL_PAYMENT_SANDBOX_URL", "")
)
PAYMENT_SANDBOX_SECRET = read_text(
    "CROSSMODEL_PAYMENT_SANDBOX_SECRET", EMBEDDED_SERVERS.get("CROSSMODEL_PAYMENT_SANDBOX_SECRET", "")
)
STRIPE_SECRET_KEY = read_text("CROSSMODEL_STRIPE_SECRET_KEY")
STRIPE_WEBHOOK_SECRET = read_text("CROSSMODEL_STRIPE_WEBHOOK_SECRET")
STRIPE_API_URL = read_text("CROSSMODEL_STRIPE_API_URL")
# Who takes new payments. Messages of a provider are heard as long as its settings are there.
PAYMENT_PROVIDERS = ("none", "sandbox", "stripe")
PAYMENT_PROVIDER = read_choice(
    "CROSSMODEL_PAYMENT_PROVIDER", "sandbox" if PAYMENT_SANDBOX_URL else "none", PAYMENT_PROVIDERS
)
if problems := payment_problems(globals()):
    raise ImproperlyConfigured("\n".join(problems))

# --- Documents -----------------------------------------------------------------------------------------------------

# Who issues them, as it is written on them. Lines of the address are separated by "|".
FONT_FOLDERS = read_list("CROSSMODEL_FONTS", "/usr/share/fonts")
SELLER_NAME = read_text("CROSSMODEL_SELLER_NAME", "CrossModel")
SELLER_ADDRESS = read_text("CROSSMODEL_SELLER_ADDRESS", "")
SELLER_COUNTRY = read_text("CROSSMODEL_SELLER_COUNTRY", "")
SELLER_TAX_ID = read_text("CROSSMODEL_SELLER_TAX_ID", "")
TAX_RATES_PPM = read_tax_rates("CROSSMODEL_TAX_RATES")
# PDF/A-3 that carries EN 16931 XML (Factur-X), where both countries are known.
ELECTRONIC_INVOICES = read_flag("CROSSMODEL_ELECTRONIC_INVOICES", default=False)
REVERSE_CHARGE_COUNTRIES = read_countries("CROSSMODEL_REVERSE_CHARGE_COUNTRIES")

# How mail may be sent to CROSSMODEL_EMAIL_HOST, with the port of each.
EMAIL_PORTS = {"none": 25, "starttls": 587, "tls": 465}

# --- People ----------------------------------------------------------------------------------------------------------

# The rest of them is in crossmodel_site/people_settings.py.
# Operators set up a second factor before the admin opens to them.
STAFF_SECOND_FACTOR = read_flag("CROSSMODEL_STAFF_SECOND_FACTOR", default=PRODUCTION)
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not BASE_URL.startswith("https://")  # Browsers allow it for localhost alone.
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
FORMAT_MODULE_PATH = "crossmodel_site.formats"
USE_TZ = True
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Files are served from where they are: there is no folder of copies, and nothing to collect.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

REST_FRAMEWORK, SPECTACULAR_SETTINGS = api_settings.REST_FRAMEWORK, api_settings.SPECTACULAR_SETTINGS
UNFOLD = admin_theme.UNFOLD

LOG_FORMAT = read_choice("CROSSMODEL_LOG_FORMAT", "text", logs.FORMATS)
LOGGING = logs.logging_settings(log_format=LOG_FORMAT, level=read_choice("CROSSMODEL_LOG_LEVEL", "INFO", logs.LEVELS))

if PRODUCTION and (problems := production_problems(globals())):
    raise ImproperlyConfigured(
        "This installation is not ready for production yet:\n" + "\n".join(f"- {line}" for line in problems)
    )
