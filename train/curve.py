"""The picture of a run: its loss over time, and what it scores on held-out dialogues; SVG, written by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 900, 460
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 60, 40, 380, 360
BARS_LEFT, BARS_WIDTH = 600, 220
INK, LINE, BAR, GRID = "#333333", "#1f6feb", "#2da44e", "#dddddd"
LOWEST_LOSS, HIGHEST_LOSS = 0.001, 10.0

Point = tuple[int, float, float]
"""Step, seconds, loss in nats a learnt token."""


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">{words}</text>'


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GRID}"/>'


def loss_plot(points: Sequence[Point]) -> list[str]:
    """The loss, on a logarithmic scale, over minutes of training."""
    minutes = max(points[-1][1] / 60, 1e-9)
    decades = math.log10(HIGHEST_LOSS / LOWEST_LOSS)

    def height_of(loss: float) -> float:
        clipped = min(max(loss, LOWEST_LOSS), HIGHEST_LOSS)
        return TOP + PLOT_HEIGHT * math.log10(HIGHEST_LOSS / clipped) / decades

    parts = [text(LEFT, TOP - 14, "loss, nats a token that the assistant says", size=13)]
    for exponent in range(round(math.log10(LOWEST_LOSS)), round(math.log10(HIGHEST_LOSS)) + 1):
        level = height_of(10.0**exponent)
        parts += [rule(LEFT, level, LEFT + PLOT_WIDTH, level), text(LEFT - 6, level + 4, f"{10.0**exponent:g}", "end")]
    step = max(1, math.ceil(minutes / 7))
    for minute in range(0, int(minutes) + 1, step):
        across = LEFT + PLOT_WIDTH * minute / minutes
        parts += [
            rule(across, TOP, across, TOP + PLOT_HEIGHT),
            text(across, TOP + PLOT_HEIGHT + 16, str(minute), "middle"),
        ]
    parts.append(text(LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT + 34, "minutes of training", "middle"))
    wide = PLOT_WIDTH / 60 / minutes
    path = " ".join(f"{LEFT + wide * seconds:.1f},{height_of(loss):.1f}" for _, seconds, loss in points)
    return [*parts, f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="1.5"/>']


def score_bars(scores: Mapping[str, float]) -> list[str]:
    """One bar a kind; scores are parts from 0 to 1."""
    parts = [text(BARS_LEFT, TOP - 14, "held-out turns said exactly", size=13)]
    pitch = PLOT_HEIGHT / len(scores)
    for number, (kind, value) in enumerate(scores.items()):
        top = TOP + number * pitch
        parts.append(text(BARS_LEFT - 6, top + pitch * 0.7, kind, "end", 10))
        size = f'width="{BARS_WIDTH * value:.1f}" height="{pitch - 3:.1f}"'
        parts.append(f'<rect x="{BARS_LEFT}" y="{top + 1:.1f}" {size} fill="{BAR}"/>')
        parts.append(text(BARS_LEFT + BARS_WIDTH + 6, top + pitch * 0.7, f"{value:.1%}", size=10))
    return parts


def draw(points: Sequence[Point], scores: Mapping[str, float]) -> str:
    """The whole picture as SVG text."""
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    return "\n".join([opening, ground, *loss_plot(points), *score_bars(scores), "</svg>"]) + "\n"
