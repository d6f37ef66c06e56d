"""Starts child processes that die with their parent and, where wanted, run as another system user."""

import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# From linux/prctl.h, linux/securebits.h and linux/capability.h.
PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522

# Users that Postgres may run as when root starts it, the first that exists.
UNPRIVILEGED_USERS = ("postgres", "nobody")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class SystemUser:
    """Whom a child runs as. `may_pass_closed_folders`: it keeps one capability of root, to reach files below a folder
    that is closed to others, as root's home is."""

    uid: int
    gid: int
    may_pass_closed_folders: bool


def choose_unprivileged_user(*, program: Path, data: Path) -> SystemUser | None:
    """Return whom a program must run as that refuses root; None when we are not root.

    It is the owner of the data where they exist, so that they stay readable whoever started first.
    Raises LookupError when the system knows no unprivileged user.
    """
    if os.geteuid() != 0:
        return None
    folders = {folder for path in (program, data) for folder in path.resolve().parents}
    closed = any(not folder.stat().st_mode & 0o001 for folder in folders)
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return SystemUser(owner.st_uid, owner.st_gid, may_pass_closed_folders=closed)
    for name in UNPRIVILEGED_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return SystemUser(entry.pw_uid, entry.pw_gid, may_pass_closed_folders=closed)
    raise LookupError(" or ".join(UNPRIVILEGED_USERS))


def start_child(
    command: Sequence[str | Path],
    *,
    user: SystemUser | None = None,
    death_signal: int = signal.SIGTERM,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: IO[bytes] | int | None = None,
    own_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Start `command` so that it gets `death_signal` when the thread that called this ends, however it ends.

    Its own session keeps a Ctrl-C in the terminal from reaching it: the parent decides in which order children stop.
    """
    return subprocess.Popen(  # noqa: S603  Every caller passes a program of this project.
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        cwd=folder,
        env=dict(environment) if environment is not None else None,
        start_new_session=own_session,
        preexec_fn=prepare_child(user=user, death_signal=death_signal),
    )


def prepare_child(*, user: SystemUser | None, death_signal: int) -> Callable[[], None]:
    """Return what a forked child does before it becomes its program."""
    parent = os.getpid()

    def prepare() -> None:
        if user is not None:
            _become(user)
        # After the change of user, which clears it.
        _libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _become(user: SystemUser) -> None:
    if user.may_pass_closed_folders:
        # Keeps capabilities over the change of user, and lets access(2) honour them, which initdb asks.
        _libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(user.gid)
    os.setuid(user.uid)
    if user.may_pass_closed_folders:
        bit = 1 << CAP_DAC_OVERRIDE
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable, then the high halves
        _libc.capset(header, sets)
        _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)
