"""The data folder of a local run: who uses it, its secret, and the files that tell others where things are."""

import fcntl
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from crossmodel_site.environment import read_env_file
from crossmodel_site.local.errors import LocalRunError

SECRET_KEY_BYTES = 48
MAX_SOCKET_FOLDER_CHARACTERS = 90  # The kernel takes 107 bytes of a socket's path.


class DataFolder:
    """Held by one local run at a time. `servers_path` is read by the settings, `demo_path` by scripts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.servers_path = path / "servers.env"
        self.demo_path = path / "demo.env"
        self.mail_path = path / "mail"
        self.credentials_path = path / "credentials-known.json"  # Names of variables, no values.
        self._lock: IO[str] | None = None

    def take(self) -> None:
        """Make the folder where it is missing and hold it until this process ends. Raises LocalRunError."""
        try:
            if not self.path.exists():
                self.path.mkdir(parents=True)
                self.path.chmod(0o711)  # Postgres may run as another user, who passes through to data of its own.
            self.mail_path.mkdir(exist_ok=True)
            self.mail_path.chmod(0o700)  # Links in mail sign people in.
            lock = (self.path / "run.lock").open("a+")
        except OSError as error:
            raise LocalRunError(
                f"The data folder {self.path} cannot be written ({error.strerror}); set CROSSMODEL_DATA to another."
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise LocalRunError(
                f"Another `make run` (process {holder}) uses the data folder {self.path}; "
                "set CROSSMODEL_DATA to another."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def make_metrics_folder(self) -> Path:
        """Make an empty folder for what the processes of this run count."""
        path = self.path / "metrics"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        return path

    def make_page_socket(self) -> Path:
        """Return where the process that makes pages is to listen: in a folder that nobody else may enter.

        A dead socket is left there: whoever listens there next replaces it, and keeps whom it lets in.
        """
        folder = self.path.resolve() / "pages"
        if len(str(folder)) > MAX_SOCKET_FOLDER_CHARACTERS:
            folder = Path(tempfile.mkdtemp(prefix="crossmodel-pages-"))
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / "socket"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        path.chmod(0o600)
        return path

    def read_secret_key(self) -> str:
        """Return the key that signs sessions, made at the first call."""
        path = self.path / "secret-key"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(SECRET_KEY_BYTES) + "\n")
        return path.read_text().strip()

    def write_servers(self, variables: Mapping[str, str]) -> None:
        write_env_file(self.servers_path, variables, comment="Written by `make run`: where its servers listen.")

    def read_demo(self) -> dict[str, str]:
        return read_env_file(self.demo_path)


def write_env_file(path: Path, variables: Mapping[str, str], *, comment: str) -> None:
    """Replace the file in one step; only its owner may read it, because it holds passwords."""
    unfinished = path.with_name(path.name + ".unfinished")
    write_private(unfinished, "".join([f"# {comment}\n", *(f"{name}={value}\n" for name, value in variables.items())]))
    unfinished.replace(path)


def write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
