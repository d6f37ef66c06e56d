"""The one place that uses a private name of redis-py: the socket beneath a connection that it has opened.

tests/billing/admission/test_pipeline.py fails when the name goes, and pyproject.toml bounds the version.
"""

import asyncio

from redis.asyncio.connection import AbstractConnection


def transport_of(connection: AbstractConnection) -> asyncio.WriteTransport:
    """Return the transport of an open connection. Raises OSError when the connection was lost meanwhile."""
    if connection._writer is None:
        raise OSError("the connection was lost at once")
    return connection._writer.transport
