"""How figures are shown to people."""

import statistics
import sys
from collections.abc import Sequence
from typing import Any


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show(name: str, figures: dict[str, Any]) -> None:
    SHOWN[name](figures)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: first column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, ["-" * width for width in widths], *rows):
        first, *rest = (
            text.ljust(width) if not column else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join((first, *rest)))


def ms(value: float) -> str:
    return f"{value:.3f}"


def show_requests(figures: dict[str, Any]) -> None:
    medians = {name: statistics.median(samples) for name, samples in figures["cpu_ms"].items()}
    rows = [
        [
            name,
            ms(median),
            f"{min(figures['cpu_ms'][name]):.3f} - {max(figures['cpu_ms'][name]):.3f}",
            f"{median / medians['nginx']:.1f}" if "nginx" in medians else "?",
            f"{median / medians['bare ASGI app']:.1f}",
        ]
        for name, median in medians.items()
    ]
    table(["CPU per billed request, not streamed", "ms", "rounds", "x nginx", "x bare app"], rows)
    if "nginx" not in medians:
        say("nginx is not installed: apt-get install nginx-light (or the like) gives the ratio that is required.")
    say("")
    others = figures["cpu_ms_of_others"]
    table(
        ["CPU of the others for it", "ms"], [[name, ms(statistics.median(samples))] for name, samples in others.items()]
    )
    say(
        f"\n{figures['gateway_per_second']:.0f} requests/s at {figures['connections']} connections,"
        f" p50 {figures['gateway_p50_ms']:.1f} ms, p99 {figures['gateway_p99_ms']:.1f} ms."
        f" One connection: {figures['one_connection_cpu_ms']:.3f} ms of CPU,"
        f" p50 {figures['one_connection_p50_ms']:.1f} ms."
        f"\nSettlement lag meanwhile: median {figures['settlement_lag_median_s']:.2f} s,"
        f" at most {figures['settlement_lag_max_s']:.2f} s."
    )


def show_streams(figures: dict[str, Any]) -> None:
    median = statistics.median(figures["cpu_ms"])
    say(
        f"CPU per billed stream of 200 tokens in 40 deltas: {median:.2f} ms"
        f" (at {figures['connections']} connections, {figures['per_second']:.0f} streams/s)."
    )


SHOWN = {"requests": show_requests, "streams": show_streams}
