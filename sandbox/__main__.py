"""`python -m sandbox`: the sandbox upstream as a server."""

import argparse
import sys
from pathlib import Path

import uvloop

from sandbox.directives import MAX_MILLISECONDS
from sandbox.journal import Journal
from sandbox.server import serve


def main() -> int:
    """Serve until stopped; 1 with one line when it cannot start."""
    parser = argparse.ArgumentParser(prog="sandbox", description="CrossModel's sandbox upstream: not a real provider.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 chooses a free one")
    parser.add_argument("--journal", type=Path, help="file to which every attempt is appended")
    parser.add_argument("--pace", type=int, default=0, metavar="MS", help="milliseconds between the deltas of streams")
    parser.add_argument("--no-fsync", action="store_true", help="do not wait for the disk")
    parser.add_argument("--fast", action="store_true", help="for benchmarks: no fsync, and the journal is buffered")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when stdin ends")
    options = parser.parse_args()
    if not 0 <= options.pace <= MAX_MILLISECONDS:
        parser.error(f"--pace takes 0 to {MAX_MILLISECONDS}")
    try:
        journal = Journal(options.journal, fsync=not options.no_fsync, buffered=options.fast)
        uvloop.run(
            serve(
                host=options.host,
                port=options.port,
                journal=journal,
                pace_milliseconds=options.pace,
                stop_with_stdin=options.stop_with_stdin,
            )
        )
    except OSError as error:
        sys.stderr.write(f"sandbox: cannot serve at {options.host}:{options.port}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
