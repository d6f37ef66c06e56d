"""Prepares the database of a local run: migrations, the catalog, the demo. Runs once, in a process of its own.

So the process that supervises a local run stays small: it never loads Django. Prints progress; on a failure prints one
line to stderr and ends with 1.
"""

import io
import json
import os
import sys
from datetime import UTC, datetime

import django
import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.db.migrations.recorder import MigrationRecorder

from crossmodel_site.local.errors import LocalRunError
from crossmodel_site.local.folder import DataFolder, write_env_file
from crossmodel_site.local.screen import complain, say

OLDEST_REDIS = (6, 2)
OWN_TABLES = ("accounts_", "billing_")


def main() -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
    try:
        django.setup()
        prepare()
    except (ImproperlyConfigured, LocalRunError, CommandError) as error:
        complain(str(error))
        return 1
    return 0


def prepare() -> None:
    """Bring Postgres up to date and write `demo.env` and `upstreams.json`. Raises LocalRunError."""
    check_postgres()
    check_redis("REDIS_URL", settings.REDIS_URL)
    if settings.CELERY_BROKER_URL != settings.REDIS_URL and settings.CELERY_BROKER_URL.startswith("redis"):
        check_redis("CELERY_BROKER_URL", settings.CELERY_BROKER_URL)
    say("Applying migrations")
    call_command("migrate", verbosity=0, interactive=False)
    say("Loading the catalog")
    # An operator's own models stay on sale, entered in the admin or by another file.
    call_command("load_catalog", settings.CATALOG_FILE, approve=True, keep_other_files=True, stdout=io.StringIO())

    # Only now: models can be imported once Django is set up.
    from billing.admission.blocking import reap_shards
    from billing.models import Upstream
    from billing.partitions import create_partitions
    from crossmodel_site.local.demo import ensure_demo

    create_partitions(now=datetime.now(UTC))
    say("Making the demo organization")
    folder = DataFolder(settings.DATA_DIR)
    demo = ensure_demo(folder.read_demo(), base_url=settings.BASE_URL)
    write_env_file(folder.demo_path, demo, comment="Written by `make run`: its addresses, logins and key, for scripts.")
    names = Upstream.objects.exclude(credential_env="").order_by("id").values_list("credential_env", flat=True)
    folder.credentials_path.write_text(json.dumps(list(dict.fromkeys(names))))
    # Builds every shard that this Redis has not built yet. Each opens a few seconds later, when the gateway is up.
    reap_shards()


def check_postgres() -> None:
    try:
        connection.ensure_connection()
    except DatabaseError as error:  # A wrong option in the address is a ProgrammingError.
        reason = " ".join(str(error.__cause__ or error).split())
        raise LocalRunError(f"DATABASE_URL does not work: {reason}") from None
    others = _tables_of_another_program()
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise LocalRunError(
            f"DATABASE_URL names a database of another program: it has the table {others[0]}{more}. Name an empty one, "
            "or unset DATABASE_URL to use a Postgres of this run."
        )


def _tables_of_another_program() -> list[str]:
    """Return the tables of a database that is not empty and has none of ours: migrations do not belong there."""
    tables = connection.introspection.table_names()
    ours = connection.introspection.django_table_names(include_views=False)
    has_ours = any(table.startswith(OWN_TABLES) for table in tables)
    return [] if has_ours else sorted(set(tables) - {*ours, MigrationRecorder.Migration._meta.db_table})


def check_redis(name: str, url: str) -> None:
    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5, decode_responses=True) as client:
            version = client.info("server")["redis_version"]
    except (redis.RedisError, ValueError) as error:
        raise LocalRunError(f"{name} does not work: {error}") from None
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        raise LocalRunError(f"{name} names a Redis {version}; CrossModel needs 6.2 or newer.")


if __name__ == "__main__":
    sys.exit(main())
