"""Runs work at one moment in threads, each with a database connection of its own, to race it."""

import threading
from collections.abc import Callable

from django.db import connection

MAX_SECONDS = 60


def run_together(*work: Callable[[], object]) -> list[BaseException]:
    """Run each in a thread with a connection of its own, started at the same moment; return what was raised."""
    barrier = threading.Barrier(len(work))
    errors: list[BaseException] = []

    def run(task: Callable[[], object]) -> None:
        try:
            barrier.wait()
            task()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(task,)) for task in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=MAX_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return errors
