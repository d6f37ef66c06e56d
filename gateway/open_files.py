"""How many files this process may have open, and so how many connections it takes.

Each connection is a file. Without this bound whoever opens enough of them, and needs no key for that, would take the
last file from the spool, from Redis and from the calls of everybody.
"""

import errno
import logging
import os
import resource
from functools import cache

from django.conf import settings

# The spool, the log, connections to Redis and Postgres, what is read now and then.
FILES_BESIDE = 256
# A client's, its upstream's, and a third for calls that go on without their client, or are kept for the next.
FILES_OF_A_CONNECTION = 3
# Tried in turn where a system has no limit but does not take any number.
USUAL_LIMITS = (65_536, 10_240)
# Of the operating system's errors those that say what this machine lacks, not what the other end does.
LACKS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))

logger = logging.getLogger(__name__)


@cache
def most_connections() -> int:
    """Return how many connections of clients this process takes at once: CROSSMODEL_MAX_CONNECTIONS, or as many as it
    may open files for.

    The limit that the operating system sets for a process is raised first, as far as it may be without being root.
    """
    files = raise_limit(settings.MAX_CONNECTIONS * FILES_OF_A_CONNECTION + FILES_BESIDE)
    fitting = max(1, (files - FILES_BESIDE) // FILES_OF_A_CONNECTION)
    if fitting < settings.MAX_CONNECTIONS:
        logger.warning(
            "This process may open %d files, so it takes %d connections at once, not the %d of"
            " CROSSMODEL_MAX_CONNECTIONS. Raise its hard limit of open files for more.",
            files,
            fitting,
            settings.MAX_CONNECTIONS,
        )
    return min(fitting, settings.MAX_CONNECTIONS)


def raise_limit(wanted: int) -> int:
    """Let this process open `wanted` files, or as many as it may. Returns how many it may open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for files in (wanted, *USUAL_LIMITS):
        if hard != resource.RLIM_INFINITY:
            files = min(files, hard)
        if soft == resource.RLIM_INFINITY or files <= soft:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
        except (OSError, ValueError):
            continue
        return files
    return wanted if soft == resource.RLIM_INFINITY else soft


def is_lacking_here(error: OSError) -> bool:
    """Say whether it is this process that lacks something: files, memory, ports. A name that could not be looked up
    does not tell; then it is tried whether a file can be opened.
    """
    if error.errno in LACKS:
        return True
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as lacking:
        return lacking.errno in LACKS
    return False
