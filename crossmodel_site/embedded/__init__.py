"""A real Postgres and a real Redis of one's own, in a folder, for machines where no server is installed.

`make run` and the tests use them. Their programs come from wheels, or from the system where a wheel does not exist.
This package imports nothing of Django: it runs before the settings, which read the addresses that it makes.
"""

from crossmodel_site.embedded.errors import ServerError
from crossmodel_site.embedded.ports import find_free_port, port_is_taken
from crossmodel_site.embedded.postgres_server import PostgresServer
from crossmodel_site.embedded.redis_server import RedisServer

__all__ = ["PostgresServer", "RedisServer", "ServerError", "find_free_port", "port_is_taken"]
