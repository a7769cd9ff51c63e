"""How a timeline is drawn as a picture: an SVG that needs nothing else, alone or within a page.

Whatever a program or a tool has said comes here as text: it is escaped, and nothing of it is markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from cadenza.server.chart import MEANINGS, fitted, round_step
from cadenza.server.screen import printable
from cadenza.server.timeline import SHADES, Bar, Lane, Tick, Timeline, span

WIDTH, NAMES, MARGIN = 1200, 130, 12        # pixels: the whole, the lanes' names, around it
TOP, LANE, BAR = 56, 26, 16                 # above the lanes; a lane; a bar in it
LEGEND = 34
LETTER = 7.3                                # a column of text
LEAST_BAR = 1.5                             # or it could not be seen
AXIS_PIXELS = 90                            # between two times, at least
LEAST_TEXT = 3                              # columns of a bar's text that are worth showing
NAME_COLUMNS = 17

# Two sets of colours: for a light background, and for a dark one.
STYLE = """
.timeline { --back: #ffffff; --text: #1c2024; --line: #d9dde2; --faint: #6a727b; --queued: #f2c94c; --prefill: #56b4d3;
 --tokens: #2e9e5b; --call: #8fb4f0; --trap: #d8a6dd; --wait: #c4c9cf; --mark: #d6402b; --ink: #10141a;
 font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) { .timeline { --back: #14171b; --text: #e6e9ed; --line: #2b3138; --faint: #98a1ab;
 --queued: #8a6a18; --prefill: #226d8a; --tokens: #23774a; --call: #3f6fc0; --trap: #8d559a; --wait: #4a525b;
 --mark: #ff7a62; --ink: #ffffff; } }
.timeline .back { fill: var(--back); } .timeline text { fill: var(--text); }
.timeline .title { font-size: 14px; font-weight: bold; } .timeline .time { fill: var(--faint); }
.timeline .grid { stroke: var(--line); } .timeline .said { fill: var(--ink); pointer-events: none; }
.timeline .queued { fill: var(--queued); } .timeline .prefill { fill: var(--prefill); }
.timeline .tokens { fill: var(--tokens); } .timeline .call { fill: var(--call); } .timeline .trap { fill: var(--trap); }
.timeline .wait { fill: var(--wait); } .timeline .mark { fill: var(--mark); stroke: var(--mark); }
.timeline .preempted { fill: none; stroke: var(--mark); }
.timeline .open { stroke: var(--text); stroke-dasharray: 3 2; } .timeline g:hover > rect { stroke: var(--text); }
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 0; background: #ffffff; color: #1c2024; font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14171b; color: #e6e9ed; }} }}
.scroll {{ overflow-x: auto; }} svg {{ min-width: 900px; width: 100%; height: auto; }}
table {{ border-collapse: collapse; margin: 12px; }} td, th {{ padding: 2px 12px 2px 0; text-align: left;
 vertical-align: top; }} td:first-child, td:nth-child(2) {{ text-align: right; white-space: nowrap; }}
td:last-child {{ overflow-wrap: anywhere; }}
</style>
</head>
<body>
<div class="scroll">
{svg}</div>
<table>
<tr><th>from</th><th>to</th><th>lane</th><th>what</th></tr>
{rows}</table>
</body>
</html>
"""


def svg(timeline: Timeline) -> str:
    """Well-formed XML of its own."""
    height = TOP + LANE * len(timeline.lanes) + LEGEND
    return "".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" class="timeline" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img">\n<title>{text_of(timeline.title)}</title>\n<style>{STYLE}</style>\n'
        f'<rect class="back" width="{WIDTH}" height="{height}"/>\n{_text(MARGIN, 22, timeline.title, "title")}',
        *_axis(timeline, height - LEGEND),
        *(element for at, lane in enumerate(timeline.lanes) for element in _lane(timeline, lane, TOP + LANE * at)),
        *_legend(timeline, height - LEGEND / 2), "</svg>\n",
    ))  # fmt: skip


def html(timeline: Timeline) -> str:
    """The same in a page, and all that it says as a table."""
    known = sorted((_seen(lane, thing) for lane in timeline.lanes for thing in lane.things()),
                   key=lambda row: row[0])
    rows = "".join(f"<tr><td>{begin:.3f}</td><td>{'' if end is None else f'{end:.3f}'}</td><td>{text_of(name)}</td>"
                   f"<td>{text_of(what)}</td></tr>\n" for begin, end, name, what in known)
    return PAGE.format(title=text_of(timeline.title), svg=svg(timeline), rows=rows)


def text_of(text: str) -> str:
    """As text within an element or an attribute, of letters that XML may hold."""
    return escape(printable(text))


def _seen(lane: Lane, thing: Bar | Tick) -> tuple[float, float | None, str, str]:
    if isinstance(thing, Bar):
        return thing.start, None if thing.open else thing.end, lane.name, thing.text
    return thing.at, thing.at, lane.name, thing.text


def _axis(timeline: Timeline, bottom: float) -> Iterator[str]:
    length = max(timeline.end - timeline.start, 1e-6)
    step = round_step(length * AXIS_PIXELS / (WIDTH - NAMES - 2 * MARGIN))
    first = math.ceil(timeline.start / step)
    for number in range(first, math.floor(timeline.end / step) + 1):
        x = _x(timeline, number * step)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom:.1f}"/>\n'
        yield _text(x + 3, TOP - 10, span(number * step) if number else "0", "time")


def _lane(timeline: Timeline, lane: Lane, y: float) -> Iterator[str]:
    yield f'<g>{_hover(lane.name)}{_text(MARGIN, y + 17, _cut(lane.name, NAME_COLUMNS), "name")}</g>\n'
    for bar in sorted(lane.bars, key=lambda bar: SHADES.index(bar.shade)):
        yield _bar(timeline, bar, y)
    for tick in lane.ticks:
        yield _tick(timeline, tick, y)


def _bar(timeline: Timeline, bar: Bar, y: float) -> str:
    x = _x(timeline, bar.start)
    width = max(LEAST_BAR, _x(timeline, bar.end) - x)
    ended = "not ended" if bar.open else f"{bar.end:.3f} s"
    room = int(width / LETTER) - 1
    label = _text(x + 4, y + 17, _cut(bar.text, room), "said") if room >= LEAST_TEXT else ""
    return (f'<g>{_hover(f"{bar.text} ({bar.start:.3f} s – {ended})")}<rect class="{bar.shade}{" open" * bar.open}" '
            f'x="{x:.1f}" y="{y + 5:.1f}" width="{width:.1f}" height="{BAR}" rx="2"/>{label}</g>\n')


def _tick(timeline: Timeline, tick: Tick, y: float) -> str:
    """A mark's arrow points to the model, which is above all."""
    x = _x(timeline, tick.at)
    foot = y + 20
    stem = (f'<line class="{tick.shade}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + 2}" y2="{foot:.1f}" '
            f'stroke-opacity="0.35"/>')
    head = f'<path class="{tick.shade}" d="M{x - 5:.1f} {foot:.1f} l5 -14 l5 14 Z"/>'
    return f'<g>{_hover(f"{tick.text} ({tick.at:.3f} s)")}{stem if tick.shade == "mark" else ""}{head}</g>\n'


def _legend(timeline: Timeline, y: float) -> Iterator[str]:
    there, x = timeline.shades(), float(NAMES + MARGIN)
    for shade in (shade for shade in MEANINGS if shade in there):
        yield f'<rect class="{shade}" x="{x:.1f}" y="{y - 9:.1f}" width="11" height="11" rx="2"/>\n'
        yield _text(x + 16, y + 1, MEANINGS[shade], "time")
        x += 16 + LETTER * (len(MEANINGS[shade]) + 3)
    if timeline.lost:
        yield _text(x, y + 1, f"{timeline.lost:,} earlier records are no longer kept", "time")


def _x(timeline: Timeline, seconds: float) -> float:
    share = (seconds - timeline.start) / max(timeline.end - timeline.start, 1e-6)
    return NAMES + MARGIN + min(max(share, 0.0), 1.0) * (WIDTH - NAMES - 2 * MARGIN)


def _text(x: float, y: float, text: str, shade: str) -> str:
    return f'<text class="{shade}" x="{x:.1f}" y="{y:.1f}">{text_of(text)}</text>'


def _cut(text: str, columns: int) -> str:
    return "".join(fitted(printable(text), columns))


def _hover(text: str) -> str:
    return f"<title>{text_of(text)}</title>"
