"""The environment variables that a catalog may name: credentials and addresses of upstreams, and no secret of ours.

Whoever may edit an upstream decides which variable is sent to which address. So what may be sent is decided elsewhere:
by CROSSMODEL_UPSTREAM_VARIABLES, and never anything that CrossModel reads for itself.
"""

import os
import re
from fnmatch import fnmatchcase

from django.conf import settings

SANDBOX_VARIABLE = "CROSSMODEL_SANDBOX_URL"
VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
OURS = ("CROSSMODEL_*", "DJANGO_*", "CELERY_*", "DATABASE_*", "REDIS_*", "PG*")


def may_name(variable: str) -> bool:
    """Say whether a catalog may send the value of this environment variable to an upstream."""
    if variable == SANDBOX_VARIABLE:
        return True
    if any(fnmatchcase(variable, pattern) for pattern in OURS):
        return False
    return any(fnmatchcase(variable, pattern) for pattern in settings.UPSTREAM_VARIABLES)


def forbidden_variables(text: str) -> list[str]:
    """Return the ${NAME}s in an address that a catalog may not name."""
    return [name for name in VARIABLE.findall(text) if not may_name(name)]


def read_variable(name: str) -> str:
    """Return the value; "" when it is unset, or when a catalog may not name it."""
    if name == SANDBOX_VARIABLE:  # `make run` chooses the port, so it is a setting and not only in the environment.
        return str(settings.SANDBOX_URL)
    return os.environ.get(name, "").strip() if may_name(name) else ""


def expand_variables(text: str) -> str:
    """Return `text` with ${NAME} replaced from the environment; "" when one is unset, since half an address is none."""
    values = {name: read_variable(name) for name in VARIABLE.findall(text)}
    if not all(values.values()):
        return ""
    return VARIABLE.sub(lambda match: values[match[1]], text)
