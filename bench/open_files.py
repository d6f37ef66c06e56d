"""Files for thousands of connections at once: as many as this machine gives to whoever measures."""

import resource

from gateway.open_files import FILES_BESIDE, FILES_OF_A_CONNECTION

WANTED = 200_000


def allow_files() -> int:
    """Let this process, and those that it starts, open many files. Returns how many connections a gateway then takes
    from one address: half of those that it has files for.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = hard
    for wanted in (max(hard, WANTED), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError):  # Only root raises the hard limit.
            continue
        files = wanted
        break
    return (files - FILES_BESIDE) // FILES_OF_A_CONNECTION // 2
