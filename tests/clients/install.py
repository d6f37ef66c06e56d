"""Makes the environments of `make test-clients` in var/clients, of Python and of Node. A second call does nothing.

Every package is locked with its hash. Imports the standard library only.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent.parent / "var/clients"
NODE_FOLDER = FOLDER / "node"
SDK_TESTS = "anthropic-sdk-tests"
# The official SDK's own tests come in its source distribution: run where they are unpacked, and copied nowhere.
SDK_SOURCES = FOLDER / "anthropic-sdk-sources"
PYTHON_ENVIRONMENTS = ("anthropic-0", SDK_TESTS, "frameworks", "llama")
MIN_NODE = 18
LINES_OF_FAILURE_SHOWN = 20


class InstallError(Exception):
    """An environment could not be made; the text says which, and why."""


def main() -> int:
    try:
        check_node()
        for name in PYTHON_ENVIRONMENTS:
            make_python_environment(name)
        unpack_sdk_sources()
        make_node_environment()
    except InstallError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def environment_python(name: str) -> Path:
    return FOLDER / name / "bin/python"


def check_node() -> None:
    """Raise InstallError when there is no Node that runs these clients."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise InstallError("make test-clients needs Node and npm: apt-get install nodejs npm")
    version = run(["node", "--version"], "node does not run").strip()
    if int(version.removeprefix("v").split(".")[0]) < MIN_NODE:
        raise InstallError(f"make test-clients needs Node {MIN_NODE} or newer; this is {version}")


def make_python_environment(name: str) -> None:
    lock = HERE / "requirements" / f"{name}.lock"
    folder = FOLDER / name
    with Environment(folder, lock.read_text() + sys.version) as environment:
        if environment.is_made:
            return
        venv.create(folder, clear=True)
        # Compiled when it is first imported: most of these packages never are.
        options = ["--no-deps", "--require-hashes", "--no-compile"]
        run([*pip_of(name), "install", "--quiet", *options, "-r", str(lock)], f"The environment {name} failed")


def pip_of(name: str) -> list[str]:
    """Return this environment's own pip, working for that one."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    return [*pip, "--python", str(environment_python(name))]


def unpack_sdk_sources() -> None:
    """Download the source distribution of the SDK that is locked for its tests, and unpack it."""
    lock = (HERE / "requirements" / f"{SDK_TESTS}.lock").read_text()
    entry = re.search(r"^anthropic==.*\n(?: +.*\n)*", lock, re.MULTILINE)
    assert entry
    with Environment(SDK_SOURCES, entry.group(0)) as environment:
        if environment.is_made:
            return
        shutil.rmtree(SDK_SOURCES, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder, "requirements.txt")
            wanted.write_text(entry.group(0))
            options = ["--no-deps", "--require-hashes", "--no-binary", ":all:", "--no-build-isolation"]
            command = [*pip_of(SDK_TESTS), "download", "--quiet", *options, "-d", folder, "-r", str(wanted)]
            run(command, "The SDK's sources could not be downloaded")
            [archive] = Path(folder).glob("*.tar.gz")
            with tarfile.open(archive) as sources:
                sources.extractall(folder, filter="data")
            shutil.move(str(archive).removesuffix(".tar.gz"), SDK_SOURCES)


def make_node_environment() -> None:
    sources = sorted(path for path in (HERE / "node").iterdir() if path.is_file())
    packages = [path for path in sources if path.suffix == ".json"]
    with Environment(NODE_FOLDER, "".join(path.read_text() for path in packages)) as environment:
        if not environment.is_made:
            shutil.rmtree(NODE_FOLDER, ignore_errors=True)
            NODE_FOLDER.mkdir(parents=True)
            copy(packages)
            run(["npm", "ci", "--no-audit", "--no-fund"], "The Node clients could not be installed", folder=NODE_FOLDER)
    copy(sources)  # Drivers find their packages beside themselves.


def copy(paths: list[Path]) -> None:
    for path in paths:
        shutil.copy2(path, NODE_FOLDER)


class Environment:
    """A folder with a mark of what it was made from, which is written when making it has succeeded."""

    def __init__(self, folder: Path, source: str) -> None:
        self._mark = folder / "made-from"
        self._wanted = hashlib.sha256(f"{folder}\n{source}".encode()).hexdigest()
        self._name = folder.name
        self.is_made = self._mark.exists() and self._mark.read_text() == self._wanted

    def __enter__(self) -> "Environment":
        if not self.is_made:
            sys.stdout.write(f"Installing the clients of var/clients/{self._name}\n")
            sys.stdout.flush()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._mark.write_text(self._wanted)


def run(command: list[str], complaint: str, *, folder: Path | None = None) -> str:
    answer = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if answer.returncode:
        lines = (answer.stdout + answer.stderr).strip().splitlines()
        raise InstallError("\n".join([f"{complaint}:", *lines[-LINES_OF_FAILURE_SHOWN:]]))
    return answer.stdout


if __name__ == "__main__":
    sys.exit(main())
