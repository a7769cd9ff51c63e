"""The picture of a run: its loss and its sampled scores over time, and its scores at the end; SVG, written by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from train.checkpoint import Progress

WIDTH, HEIGHT = 900, 740
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 60, 40, 380, 280
SAMPLED_TOP = TOP + PLOT_HEIGHT + 80
BARS_LEFT, BARS_WIDTH = 600, 220
INK, LINE, BAR, GRID = "#333333", "#1f6feb", "#2da44e", "#dddddd"
COLOURS = ("#1f6feb", "#2da44e", "#cf222e", "#8250df", "#bf8700", "#0a7c91", "#bc4c00", "#57606a")
LOWEST_LOSS, HIGHEST_LOSS = 0.001, 10.0

Sample = tuple[float, dict[str, float]]
"""Seconds, and the score of each sampled kind from 0 to 1."""
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
    parts += minute_axis(TOP, minutes)
    wide = PLOT_WIDTH / 60 / minutes
    path = " ".join(f"{LEFT + wide * seconds:.1f},{height_of(loss):.1f}" for _, seconds, loss in points)
    return [*parts, f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="1.5"/>']


def minute_axis(top: float, minutes: float) -> list[str]:
    """Vertical rules under a plot, with their minutes."""
    parts: list[str] = []
    for minute in range(0, int(minutes) + 1, max(1, math.ceil(minutes / 7))):
        across = LEFT + PLOT_WIDTH * minute / minutes
        parts += [
            rule(across, top, across, top + PLOT_HEIGHT),
            text(across, top + PLOT_HEIGHT + 16, str(minute), "middle"),
        ]
    return [*parts, text(LEFT + PLOT_WIDTH / 2, top + PLOT_HEIGHT + 34, "minutes of processor time a worker", "middle")]


def sampled_plot(sampled: Sequence[Sample], minutes: float) -> list[str]:
    """A line a kind: the part of a few held-out dialogues that would be said exactly."""
    parts = [text(LEFT, SAMPLED_TOP - 14, "held-out dialogues said exactly, sampled in training", size=13)]
    for percent in range(0, 101, 25):
        level = SAMPLED_TOP + PLOT_HEIGHT * (1 - percent / 100)
        parts += [rule(LEFT, level, LEFT + PLOT_WIDTH, level), text(LEFT - 6, level + 4, f"{percent} %", "end")]
    parts += minute_axis(SAMPLED_TOP, minutes)
    kinds = list(sampled[-1][1]) if sampled else []
    for number, (kind, colour) in enumerate(zip(kinds, COLOURS, strict=False)):
        wide = PLOT_WIDTH / 60 / minutes
        path = " ".join(
            f"{LEFT + wide * seconds:.1f},{SAMPLED_TOP + PLOT_HEIGHT * (1 - scores[kind]):.1f}"
            for seconds, scores in sampled
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        level = SAMPLED_TOP + 8 + 14 * number
        parts.append(f'<rect x="{LEFT + PLOT_WIDTH + 8}" y="{level - 8}" width="8" height="8" fill="{colour}"/>')
        parts.append(text(LEFT + PLOT_WIDTH + 20, level, kind, size=10))
    return parts


def score_bars(scores: Mapping[str, float]) -> list[str]:
    """One bar a kind; scores are parts from 0 to 1."""
    parts = [text(BARS_LEFT, TOP - 14, "held-out tasks and turns, exact", size=13)]
    pitch = (HEIGHT - 2 * TOP) / len(scores)
    for number, (kind, value) in enumerate(scores.items()):
        top = TOP + number * pitch
        parts.append(text(BARS_LEFT - 6, top + pitch * 0.7, kind, "end", 10))
        size = f'width="{BARS_WIDTH * value:.1f}" height="{pitch - 3:.1f}"'
        parts.append(f'<rect x="{BARS_LEFT}" y="{top + 1:.1f}" {size} fill="{BAR}"/>')
        parts.append(text(BARS_LEFT + BARS_WIDTH + 6, top + pitch * 0.7, f"{value:.1%}", size=10))
    return parts


def draw(progress: Progress, scores: Mapping[str, float]) -> str:
    """The whole picture as SVG text."""
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    plots = [*loss_plot(progress.curve), *sampled_plot(progress.sampled, progress.seconds / 60)]
    return "\n".join([opening, ground, *plots, *score_bars(scores), "</svg>"]) + "\n"
