"""One Postgres and one Redis for each process that runs tests, in a folder of its own: they do not meet."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from crossmodel_site.embedded import PostgresServer, RedisServer

# Postgres refuses to empty the tables of the book of record, and Django does so after a test with real transactions.
MAY_TRUNCATE = "-c crossmodel.may_truncate=on"


def prepare_environment() -> None:
    """Set every variable that the settings read, before anything reads them.

    Variables of the person who runs the tests are dropped: a real provider's key would bring real calls.
    `DATABASE_URL` and `REDIS_URL` are kept when given; the test database and Redis database are then written to.
    """
    for name in list(os.environ):
        if name.startswith("CROSSMODEL_") or name.endswith("_API_KEY") or name in {"PORT", "CELERY_BROKER_URL"}:
            del os.environ[name]
    # Tests start a hundred processes of this program; where nothing is kept, each compiles it anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    folder = Path(tempfile.mkdtemp(prefix="crossmodel-tests-"))
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["CROSSMODEL_DATA"] = str(folder / "var")
    (folder / "var").mkdir()
    if not os.environ.get("DATABASE_URL"):
        postgres = PostgresServer(folder / "postgres", durable=False)
        postgres.start()
        atexit.register(postgres.stop)
        os.environ["DATABASE_URL"] = postgres.url
    if not os.environ.get("REDIS_URL"):
        redis = RedisServer(folder / "redis", durable=False)
        redis.start()
        atexit.register(redis.stop)
        os.environ["REDIS_URL"] = redis.url
    os.environ["CELERY_BROKER_URL"] = os.environ["REDIS_URL"]
    os.environ["PGOPTIONS"] = MAY_TRUNCATE
    os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
