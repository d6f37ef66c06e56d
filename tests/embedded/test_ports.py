"""Ports for servers: nobody who asks is given one that another was given, whether or not a server runs on it."""

import subprocess
import sys

FIRST_PORT = 20_000
ASK = f"""
from crossmodel_site.embedded import ports
ports.LOWEST_PORT, ports.HIGHEST_PORT = {FIRST_PORT}, {FIRST_PORT + 1_000}
print(*(ports.find_free_port() for _ in range(150)), flush=True)
input()
"""


def test_two_programs_are_never_given_the_same_port() -> None:
    """Of a thousand ports each draws 150: unmarked, two would meet some twenty times, and each itself ten times."""
    programs = [
        subprocess.Popen([sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    drawn: list[str] = []
    for program in programs:
        assert program.stdout is not None
        drawn += program.stdout.readline().split()
    for program in programs:
        program.communicate("\n", timeout=20)
    assert len(drawn) == 300
    assert len(set(drawn)) == 300
