"""Bars of the bench's medians as SVG, written by hand: a plot is no reason for a dependency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COLOURS = ("#2f6fb0", "#e08a2c", "#4f9d4f", "#a24fa2", "#888888")
LEFT, WIDTH, BAR, GAP, TOP = 150, 520, 14, 12, 56


def escape(text: str) -> str:
    """Text for XML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def bars(results: dict[str, Any], rows: Sequence[str], floor: str) -> str:
    """One group of bars for each row, with whiskers from quartile to quartile."""
    names = results["runtimes"]
    times = results["times"]
    largest = max(times[row][name]["high"] for row in rows for name in names if name in times[row])
    scale = WIDTH / largest
    height = TOP + len(rows) * (len(names) * BAR + GAP) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{height}" '
        f'viewBox="0 0 {LEFT + WIDTH + 90} {height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<text x="12" y="20" font-size="14" font-weight="bold">Milliseconds, median and quartiles</text>',
    ]
    x = 12
    for number, name in enumerate(names):
        parts.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{COLOURS[number % 5]}"/>')
        label = f"{name} ({results['versions'][name].replace(name + ' version ', '')})"
        parts.append(f'<text x="{x + 17}" y="40">{escape(label)}</text>')
        x += 30 + 7 * len(label)
    y = TOP
    if floor in times:
        at = LEFT + times[floor][floor]["median"] * scale
        parts.append(
            f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{height - 28}" stroke="#bbbbbb" '
            f'stroke-dasharray="4 3"/><text x="{at + 4:.1f}" y="{height - 14}" fill="#777777">'
            f"{escape(floor)} -c pass: {times[floor][floor]['median']:.1f}</text>"
        )
    for row in rows:
        middle = y + len(names) * BAR / 2 + 4
        parts.append(
            f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(row)}</text>'
        )
        for number, name in enumerate(names):
            if name in times[row]:
                figure = times[row][name]
                long = figure["median"] * scale
                low, high = LEFT + figure["low"] * scale, LEFT + figure["high"] * scale
                parts.append(
                    f'<rect x="{LEFT}" y="{y}" width="{long:.1f}" height="{BAR - 2}" '
                    f'fill="{COLOURS[number % 5]}"/>'
                    f'<line x1="{low:.1f}" y1="{y + 6}" x2="{high:.1f}" y2="{y + 6}" stroke="#222222"/>'
                    f'<text x="{high + 5:.1f}" y="{y + 10}" font-size="11">{figure["median"]:.1f}</text>'
                )
            y += BAR
        y += GAP
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
