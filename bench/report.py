"""How results are shown to people."""

import statistics
import sys
from collections.abc import Sequence
from typing import Any


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show(name: str, results: dict[str, Any]) -> None:
    SHOWN[name](results)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: first column to the left, results to the right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, ["-" * width for width in widths], *rows):
        first, *rest = (
            text.ljust(width) if not column else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join((first, *rest)))


def ms(value: float) -> str:
    return f"{value:.3f}"


def show_requests(results: dict[str, Any]) -> None:
    medians = {name: statistics.median(samples) for name, samples in results["cpu_ms"].items()}
    rows = [
        [
            name,
            ms(median),
            f"{min(results['cpu_ms'][name]):.3f} - {max(results['cpu_ms'][name]):.3f}",
            f"{median / medians['nginx']:.1f}" if "nginx" in medians else "?",
            f"{median / medians['bare ASGI app']:.1f}",
        ]
        for name, median in medians.items()
    ]
    table(["CPU per billed request, not streamed", "ms", "rounds", "x nginx", "x bare app"], rows)
    if "nginx" not in medians:
        say("nginx is not installed: apt-get install nginx-light (or the like) gives the ratio that is required.")
    say("")
    others = results["cpu_ms_of_others"]
    table(
        ["CPU of the others for it", "ms"], [[name, ms(statistics.median(samples))] for name, samples in others.items()]
    )
    say(
        f"\n{results['gateway_per_second']:.0f} requests/s at {results['connections']} connections,"
        f" p50 {results['gateway_p50_ms']:.1f} ms, p99 {results['gateway_p99_ms']:.1f} ms."
        f" One connection: {results['one_connection_cpu_ms']:.3f} ms of CPU,"
        f" p50 {results['one_connection_p50_ms']:.1f} ms."
        f"\nSettlement lag meanwhile: median {results['settlement_lag_median_s']:.2f} s,"
        f" at most {results['settlement_lag_max_s']:.2f} s."
    )


def show_streams(results: dict[str, Any]) -> None:
    median = statistics.median(results["cpu_ms"])
    say(
        f"CPU per billed stream of 200 tokens in 40 deltas: {median:.2f} ms"
        f" (at {results['connections']} connections, {results['per_second']:.0f} streams/s)."
    )


def show_many_streams(results: dict[str, Any]) -> None:
    rows = []
    for streams, seen in results["slow"].items():
        gateway = seen["gateway"]
        late = [f"{value:.1f}" for value in (*seen["direct"]["delay_ms"][1:], *gateway["delay_ms"])]
        cost = [f"{gateway['cpu_ms'][name] * 1000 / gateway['events']:.0f}" for name in ("gateway", "Redis")]
        rows.append([streams, *late, *cost, f"{gateway['memory_kept_kib']:.0f}"])
    heads = ["streams, an event a second each", "direct p99", "most", "p50", "p99", "most", "us an event", "Redis"]
    table([*heads, "KiB kept"], rows)
    bulk = results["bulk"]
    p50, p99, most = bulk["probe_ms"]
    say(
        f"\nBeside streams without a pause ({bulk['bytes'] / 1e6:.0f} MB in {bulk['seconds']:.0f} s) a 404 takes"
        f" p50 {p50:.0f} ms, p99 {p99:.0f} ms, at most {most:.0f} ms."
    )


def show_steps(results: dict[str, Any]) -> None:
    steps = results["steps"]
    server, *ours = steps.items()
    rest = results["whole"] - sum(value for _, value in ours)
    rows = [[name, ms(value)] for name, value in (server, *ours)]
    rows.append(["tasks, waiting, heartbeat: the whole less its steps", ms(rest)])
    rows.append(["together", ms(server[1] + results["whole"])])
    table(["CPU by step, each measured by itself", "ms"], rows)


def show_settlement(results: dict[str, Any]) -> None:
    cpu = results["cpu_ms_per_event"]
    say(
        f"One worker settled {results['events']} events of {results['organizations']} organizations in"
        f" {results['seconds']:.1f} s: {results['per_second']:.0f} events/s."
    )
    table(["CPU per event", "ms"], [[name, ms(value)] for name, value in cpu.items()])


def show_rebuild(results: dict[str, Any]) -> None:
    say(
        f"{results['organizations']} organizations, {results['running']} of them with a stream, and Redis is emptied.\n"
        f"Served: the first after {results['first_served_seconds']:.1f} s, half after"
        f" {results['half_served_seconds']:.1f} s, all after {results['all_served_seconds']:.1f} s. All whose money a"
        f" stream held were told so after {results['all_held_again_seconds']:.1f} s; {results['beyond']} were admitted"
        f" beyond it.\nRefused meanwhile: {results['refusals']}. CPU of the gateway for each organization, with its"
        f" requests: {results['gateway_cpu_ms'] / results['organizations']:.1f} ms."
    )


def show_overdraft(results: dict[str, Any]) -> None:
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(results["statuses"].items()))
    say(
        f"{results['at_once']} requests at once on 1 USD: {statuses}, in {results['seconds']:.0f} s."
        f"\nBalance afterwards {results['balance_nanos'] / 1e9:.6f} USD; it may not fall below"
        f" {results['bound_nanos'] / 1e9:.6f}."
    )
    for status, text in sorted(results["first_errors"].items()):
        say(f"First {status}: {text.rpartition(chr(10))[2]}")


def show_latency(results: dict[str, Any]) -> None:
    rows = []
    for step in results["steps"]:
        through, directly = step["gateway"], step["upstream"]
        added = [through[name] - directly[name] for name in ("p50_ms", "p99_ms")]
        is_half = step["connections"] == results["half_load_connections"]
        rows.append(
            [
                f"{step['connections']}{' (half load)' if is_half else ''}",
                f"{through['per_second']:.0f}",
                *(f"{value:.2f}" for value in (through["p50_ms"], through["p99_ms"], *added)),
            ]
        )
    table(["connections", "requests/s", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms"], rows)
    within = ", ".join(f"{rate:.0f} at {bound} ms" for bound, rate in results["per_second_by_p99_ms"].items())
    memory = results["memory"]
    say(
        f"\nRequests/s with p99 within a bound: {within}."
        f"\nMemory of the gateway after {memory['requests']} requests in {memory['seconds']:.0f} s:"
        f" {memory['before_mib']:.1f} -> {memory['after_mib']:.1f} MiB."
    )


def show_stream_limits(results: dict[str, Any]) -> None:
    rows = []
    for kind, found in (("50 events/s", results["paced"]), ("an event a second", results["slow"])):
        for streams, seen in found.items():
            gateway = seen["gateway"]
            late = [f"{value:.1f}" for value in (*seen["direct"]["delay_ms"][1:], *gateway["delay_ms"])]
            cost = f"{gateway['gateway_cpu_ms'] * 1000 / gateway['events']:.0f}"
            cores = f"{gateway['gateway_cpu_ms'] / 1000 / gateway['seconds']:.2f}"
            rows.append([f"{streams} with {kind}", *late, cost, cores, f"{gateway['memory_kib_each']:.0f}"])
    table(["streams", "direct p99", "most", "p50", "p99", "most", "us an event", "cores", "KiB each"], rows)
    say(f"\n{results['most_paced']} streams at 50 events/s keep up: 99 of 100 events are here before the next is due.")
    rows = [
        [f"{together} written together", f"{each['us_an_event']:.1f}", f"{each['per_core_second']:.0f}"]
        for together, each in results["unpaced"].items()
    ]
    table(["streams without a pause", "us an event", "events a core-second"], rows)


def show_settlement_shapes(results: dict[str, Any]) -> None:
    rows = []
    for name, rounds in results["rounds"].items():
        rates = [each["per_second"] for each in rounds]
        cpu = [
            statistics.median(each["cpu_ms_per_event"][part] for each in rounds)
            for part in ("worker", "Postgres", "Redis")
        ]
        spread = f"{min(rates):.0f} - {max(rates):.0f}"
        rows.append(
            [name, f"{statistics.median(rates):.0f}", spread, *(ms(value) for value in cpu), f"{1000 / cpu[0]:.0f}"]
        )
    heads = ["settled", "events/s", "rounds", "worker ms", "Postgres", "Redis", "events a core-second of workers"]
    table(heads, rows)


def show_settlement_growth(results: dict[str, Any]) -> None:
    rows = [
        [
            f"{int(records):,}",
            f"{found['per_second']:.0f}",
            f"{min(found['rounds']):.0f} - {max(found['rounds']):.0f}",
            *(ms(value) for value in found["cpu_ms_per_event"].values()),
        ]
        for records, found in results.items()
    ]
    table(["records before", "events/s", "rounds", "worker ms", "Postgres", "Redis"], rows)


def show_idle(results: dict[str, Any]) -> None:
    rows = [
        [name, f"{each['cpu_percent']:.2f}", f"{each['pss_mib']:.0f}"] for name, each in results["processes"].items()
    ]
    rows.append(["together", f"{results['cpu_percent']:.2f}", f"{results['pss_mib']:.0f}"])
    table([f"make run, idle for {results['seconds']} s", "% of a core", "PSS MiB"], rows)


def show_bodies(results: dict[str, Any]) -> None:
    for size, found in results["shapes"].items():
        plain = found["plain text"]
        rows = [
            [
                name,
                f"{each['status']}",
                f"{each['cpu_ms']:.1f}",
                f"{each['cpu_ms'] / plain['cpu_ms']:.1f}",
                f"{each['memory_mib'] * 1024**2 / each['bytes']:.1f}",
                f"{each['memory_mib'] / plain['memory_mib']:.1f}" if plain["memory_mib"] else "",
                f"{each['stall_ms']:.0f}",
                f"{each['small_p99_ms']:.0f}",
            ]
            for name, each in found.items()
        ]
        heads = [f"bodies of {size}", "answer", "CPU ms", "x plain", "memory x size", "x plain", "stall ms", "p99 ms"]
        table(heads, rows)
        say("")
    say(
        f"p99 is that of {results['small_connections']} small requests at a time beside it;"
        f" with nothing beside them it is {results['small_p99_ms']:.0f} ms."
    )


def show_peers(results: dict[str, Any]) -> None:
    table(PEER_HEADS, peer_rows(results))
    for name, why in results["missing"].items():
        say(f"{name}: {why}")


PEER_HEADS = ["CPU per request, not streamed", "x ours", "x nginx", "ms", "rounds", "requests/s", "p50 ms"]


def peer_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return a row for each gateway: ratios first, then what they were made of."""
    medians = {name: statistics.median(samples) for name, samples in results["cpu_ms"].items()}
    ours, nginx = next(iter(medians.values())), medians.get("nginx")
    return [
        [
            name,
            f"{median / ours:.2f}",
            f"{median / nginx:.1f}" if nginx else "?",
            ms(median),
            f"{min(results['cpu_ms'][name]):.3f} - {max(results['cpu_ms'][name]):.3f}",
            f"{statistics.median(results['per_second'][name]):.0f}",
            f"{statistics.median(results['p50_ms'][name]):.1f}",
        ]
        for name, median in medians.items()
    ]


SHOWN = {
    "requests": show_requests,
    "streams": show_streams,
    "many-streams": show_many_streams,
    "steps": show_steps,
    "settlement": show_settlement,
    "overdraft": show_overdraft,
    "latency": show_latency,
    "stream-limits": show_stream_limits,
    "settlement-shapes": show_settlement_shapes,
    "settlement-growth": show_settlement_growth,
    "rebuild": show_rebuild,
    "bodies": show_bodies,
    "idle": show_idle,
    "peers": show_peers,
}
