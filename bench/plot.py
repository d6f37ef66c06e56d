"""`python -m bench.plot var/bench/<time>.json docs/peers.svg`: what a request costs each gateway, as a picture.

Bars are on a logarithmic scale, since the longest is hundreds of times the shortest. No library: it is one picture.
"""

import html
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

WIDTH, BAR, GAP, LEFT, RIGHT, TOP = 760, 22, 10, 250, 90, 34
LEAST_MS = 0.01
OURS, OTHERS = "#2f6fde", "#8a93a3"


def draw(results: dict[str, Any]) -> str:
    """Return the SVG of the section `peers`."""
    medians = {name: statistics.median(samples) for name, samples in results["cpu_ms"].items()}
    most = max(medians.values())
    scale = (WIDTH - LEFT - RIGHT) / math.log(most / LEAST_MS)
    height = TOP + len(medians) * (BAR + GAP) + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="13" role="img" aria-label="CPU per request by gateway">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" fill="#444">CPU per request, ms (logarithmic); less is better</text>',
    ]
    for number, (name, median) in enumerate(medians.items()):
        y = TOP + number * (BAR + GAP)
        width = max(2.0, math.log(median / LEAST_MS) * scale)
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end" fill="#222">{html.escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{OTHERS if number else OURS}"/>',
            f'<text x="{LEFT + width + 6:.1f}" y="{y + 16}" fill="#222">{median:.3f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    source, target = sys.argv[1:]
    Path(target).write_text(draw(json.loads(Path(source).read_text())["peers"]))
