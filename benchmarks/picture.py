"""A line plot as SVG, beside the benchmarks' code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 60, 40, 150, 50
INK, GRID, COLOURS = "#333333", "#dddddd", ("#1f6feb", "#2da44e", "#bf3989", "#bc4c00")


class Line(NamedTuple):
    """Points (x, y), x above 0, in order of x."""

    name: str
    points: list[tuple[float, float]]


def draw(name: str, title: str, across: str, up: str, lines: Sequence[Line]) -> Path:
    """x on a scale of doublings, y from 0. Answers where it was written."""
    every = [point for line in lines for point in line.points]
    low, high = (math.log2(edge(x for x, _ in every)) for edge in (min, max))
    top = max(y for _, y in every) * 1.05
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + wide * (math.log2(x) - low) / max(high - low, 1e-9), TOP + tall * (1 - y / top)

    parts = [_text(LEFT, 22, title, size=15), _text(LEFT + wide / 2, HEIGHT - 10, across, "middle"),
             _text(8, TOP - 8, up)]
    for x in sorted({x for x, _ in every}):
        parts += [_rule(*place(x, 0), *place(x, top)), _text(place(x, 0)[0], TOP + tall + 16, f"{x:g}", "middle")]
    step = 10 ** math.floor(math.log10(top)) * (1 if top / 10 ** math.floor(math.log10(top)) > 4 else 0.5)
    for count in range(int(top / step) + 1):
        y = count * step
        level = place(1, y)[1]
        parts += [_rule(LEFT, level, LEFT + wide, level), _text(LEFT - 6, level + 4, f"{y:g}", "end")]
    for line, colour in zip(lines, COLOURS, strict=False):
        drawn = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line.points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(place(*line.points[-1])[0] + 8, place(*line.points[-1])[1] + 4, line.name))
    path = Path(__file__).with_name(name)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
                    f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{"".join(parts)}</svg>\n')
    return path


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">{words}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GRID}"/>'
