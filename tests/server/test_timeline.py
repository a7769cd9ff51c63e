"""Which lane what is in, and how lanes are drawn: in letters, and as a picture that takes nothing said for markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from rich.cells import cell_len
from rich.console import Console

from cadenza.sdk.client import ExitStatus, Trace, TraceRecord
from cadenza.sdk.client.records import Snapshot
from cadenza.server import picture
from cadenza.server.chart import LEAST_CHART, LETTERS, drawn, fitted, lines_of, plain, round_step
from cadenza.server.timeline import MODEL_LANES, TRACK_LANES, Bar, Lane, Tick, Timeline, span, timeline_of

HOSTILE = "</title><script>alert(1)</script> & \"quoted\" ]]> \x00\x1b[2J\ud800\ufffe é"
KNOWN = Snapshot(7, "d" * 64, "agent", "{}", "ended", datetime.now(UTC), None, ExitStatus("finished", 0, ""), {}, 0)


def traced(*records: tuple[object, ...], seconds: float = 10.0, lost: int = 0) -> Trace:
    """Records without their sequence."""
    numbered = tuple(TraceRecord(lost + at, *record) for at, record in enumerate(records, 1))  # type: ignore[arg-type]
    return Trace(KNOWN, seconds, numbered, lost)


def marks(*spans: tuple[str, float, float | None]) -> Trace:
    """A call for each (track, begin, end)."""
    moments = [(begin, "begin", track) for track, begin, _ in spans]
    moments += [(end, "end", track) for track, _, end in spans if end is not None]
    return traced(*((kind, at, None, track, f"{kind} {track}") for at, kind, track in sorted(moments)))


def tracks(trace: Trace) -> list[Lane]:
    return [lane for lane in timeline_of(trace).lanes if lane.name != "model"]


AGENT = traced(
    ("run", 0.5, 4.0, "run 1", "stopped"), ("fed", 1.0, 2.0, "run 1", "", 120, 64),
    ("sampled", 2.0, 4.0, "run 1", "", 41), ("begin", 2.5, None, "7", "search('otters')"),
    ("begin", 3.0, None, "8", "mail('me')"), ("begin", 4.0, None, "trap", ""), ("wait", 4.0, 6.0, "", "search or mail"),
    ("end", 6.0, None, "7", "42 otters"), ("end", 6.0, None, "trap", ""), ("instant", 6.0, None, "interrupt", "7 = 42"),
    ("run", 6.0, None, "run 2", ""), ("fed", 6.0, 6.5, "run 2", "", 9), ("sampled", 6.5, 9.5, "run 2", "", 31))


# --- lanes ---

def test_calls_that_overlap_have_lanes_of_their_own_and_those_of_a_track_share_one() -> None:
    lanes = tracks(marks(("a", 1, 5), ("b", 2, 3), ("a", 6, 7), ("c", 6.5, None)))
    assert [(lane.name, [(bar.start, bar.end, bar.open) for bar in lane.bars]) for lane in lanes] == [
        ("a", [(1, 5, False), (6, 7, False)]), ("b", [(2, 3, False)]), ("c", [(6.5, 10, True)])]
    assert lanes[0].bars[0].text == "begin a → end a"


def test_what_overlaps_on_one_track_is_laid_apart_and_ends_close_what_began_last() -> None:
    inner_first = traced(("begin", 1.0, None, "t", "outer"), ("begin", 2.0, None, "t", "inner"),
                         ("end", 3.0, None, "t", "one"), ("end", 4.0, None, "t", "two"))
    assert [(lane.name, [(bar.start, bar.end, bar.text) for bar in lane.bars]) for lane in tracks(inner_first)] == [
        ("t", [(1, 4, "outer → two")]), ("t", [(2, 3, "inner → one")])]


def test_more_tracks_than_lanes_go_where_there_is_room() -> None:
    apart = tracks(marks(*((f"{n}", n / 10, n / 10 + 0.05) for n in range(TRACK_LANES + 20))))
    assert len(apart) == TRACK_LANES
    assert sum(len(lane.bars) for lane in apart) == TRACK_LANES + 20
    for lane in apart:
        assert all(one.end <= other.start for one, other in zip(lane.bars, lane.bars[1:], strict=False))
    assert sum(lane.name == "…" for lane in apart) > 0


def test_an_agent_by_lanes() -> None:
    timeline = timeline_of(AGENT)
    assert [lane.name for lane in timeline.lanes] == ["model", "7", "8", "trap", "interrupt", "waits"]
    model, search, mail, trap, interrupt, waits = timeline.lanes
    assert [(bar.shade, bar.start, bar.end) for bar in model.bars] == [
        ("queued", 0.5, 1), ("prefill", 1, 2), ("tokens", 2, 4), ("prefill", 6, 6.5), ("tokens", 6.5, 9.5)]
    assert model.bars[1].text == "run 1: 120 inputs, 64 reused, 1 s"
    assert model.bars[2].text == "run 1: 41 tokens, 2 s, 20 a second"
    assert search.bars == [Bar(2.5, 6, "call", "search('otters') → 42 otters")]
    assert (mail.bars[0].open, trap.bars[0].shade, trap.bars[0].text) == (True, "trap", "trap")
    assert interrupt.ticks == [Tick(6, "mark", "7 = 42")]
    assert waits.bars == [Bar(4, 6, "wait", "search or mail")]
    assert timeline.title == "process 7, agent: finished (0), 10 s, 72 tokens"


def test_work_that_overlaps_is_laid_apart_and_too_much_shares_the_last_lane() -> None:
    runs = [("run", 1.0, 5.0, f"run {n}", "length") for n in range(MODEL_LANES + 3)]
    lanes = timeline_of(traced(*runs, ("run", 6.0, 7.0, "run x", ""))).lanes
    assert [lane.name for lane in lanes] == ["model", *(f"model {n}" for n in range(2, MODEL_LANES + 1))]
    assert lanes[0].bars[-1].start == 6.0
    assert sum(len(lane.bars) for lane in lanes) == MODEL_LANES + 4


def test_who_is_preempted_waits_for_room_until_he_is_fed_again() -> None:
    (model,) = timeline_of(traced(
        ("run", 0.0, 9.0, "run 1", "length"), ("fed", 0.0, 1.0, "run 1", "", 5), ("sampled", 1.0, 2.0, "run 1", "", 3),
        ("preempted", 3.0, None, "run 1", ""), ("fed", 5.0, 6.0, "run 1", "", 8), ("sampled", 6.0, 9.0, "run 1", "", 4),
    )).lanes
    assert [(bar.shade, bar.start, bar.end) for bar in model.bars if bar.shade == "queued"] == [("queued", 3, 5)]
    assert [tick.at for tick in model.ticks] == [3.0]


def test_what_is_put_into_a_run_is_a_mark_on_it() -> None:
    (model,) = timeline_of(traced(("run", 0.0, 9.0, "run 1", ""), ("interjected", 3.0, 3.5, "run 1", "", 7))).lanes
    assert model.bars[-1] == Bar(3.0, 3.5, "prefill", "run 1: 7 tokens put in, 500 ms")
    assert model.ticks == [Tick(3.0, "mark", "run 1: 7 tokens put in")]


def test_what_began_before_all_that_is_kept_begins_with_it() -> None:
    timeline = timeline_of(traced(("sampled", 5.0, 6.0, "run 1", "", 3), ("end", 7.0, None, "a", "done"), lost=12))
    assert (timeline.start, timeline.lost) == (5.0, 12)
    assert timeline.lanes[1].bars == [Bar(5.0, 7.0, "call", "done")]


def test_nothing_at_all_is_a_timeline_too() -> None:
    timeline = timeline_of(traced(seconds=0.0))
    assert [lane.name for lane in timeline.lanes] == ["model"]
    assert plain(timeline, 40).splitlines()[-1].strip() == "model"
    ElementTree.fromstring(picture.svg(timeline))


# --- letters ---

@pytest.mark.parametrize("width", [40, 200])
def test_a_terminal_of_any_width(width: int) -> None:
    lines = [line for line in plain(timeline_of(AGENT), width).splitlines() if line]
    assert max(map(cell_len, lines)) <= width
    assert max(map(cell_len, lines)) >= width * 0.9
    rows = {line.split()[0]: line for line in lines}
    chart = width - len("interrupt") - 1
    for shade, seconds in (("tokens", 5.0), ("prefill", 1.5), ("queued", 0.5)):
        assert rows["model"].count(LETTERS[shade]) == pytest.approx(seconds / 10 * chart, abs=2)
    assert rows["model"].index(LETTERS["tokens"]) == pytest.approx(10 + 0.2 * chart, abs=1)
    assert rows["interrupt"].index(LETTERS["mark"]) == pytest.approx(10 + 0.6 * chart, abs=1)
    assert ("search('otters') → 42 otters" in rows["7"]) == (width == 200)
    assert all(meaning in "\n".join(lines[-3:]) for meaning in ("inputs", "tokens", "call", "trap", "mark"))
    assert "preempted" not in "\n".join(lines)


@pytest.mark.parametrize("width", [1, 9, 13, 40])
def test_narrow_terminals_get_what_fits(width: int) -> None:
    for line in lines_of(timeline_of(replace(AGENT, lost=5)), width):
        assert len(line.letters) == len(line.shades)
        assert cell_len("".join(line.letters)) <= max(width, LEAST_CHART + 1 + max(1, width // 4))


def test_colours_are_of_what_is_drawn() -> None:
    console = Console(width=80, color_system="standard", force_terminal=True)
    with console.capture() as captured:
        console.print(drawn(timeline_of(AGENT), 80))
    assert re.search("\x1b\\[32m█+\x1b", captured.get())
    assert re.search("\x1b\\[35m░", captured.get())


def test_a_terminal_is_not_told_what_to_do() -> None:
    marked = traced(("begin", 0.0, None, HOSTILE, HOSTILE), ("instant", 1.0, None, "猫猫猫", "🦦" * 50))
    text = plain(timeline_of(marked), 90)
    assert not [letter for letter in text if not letter.isprintable() and letter != "\n"]
    assert max(map(cell_len, text.splitlines())) <= 90


def test_wide_letters_are_cut_between_columns() -> None:
    assert "".join(fitted("猫猫猫", 6)) == "猫猫猫"
    assert cell_len("".join(fitted("猫猫猫", 5))) == 5
    assert cell_len("".join(fitted("猫猫猫", 4))) == 4
    assert "".join(fitted("abc", 2)) == "a…"


def test_times_are_round() -> None:
    assert [round_step(s) for s in (0.011, 0.2, 1.0, 4.1, 700)] == pytest.approx([0.02, 0.2, 1, 5, 1000])
    assert [span(s) for s in (0.00123, 0.25, 1.5, 61, 12345)] == ["1.23 ms", "250 ms", "1.5 s", "61 s", "12,345 s"]


# --- pictures ---

SVG = "{http://www.w3.org/2000/svg}"


def titles(text: str) -> list[str]:
    return [title.text or "" for title in ElementTree.fromstring(text).iter(f"{SVG}title")]


def test_the_picture_is_xml_and_has_every_call_where_it_belongs() -> None:
    text = picture.svg(timeline_of(AGENT))
    root = ElementTree.fromstring(text)
    assert "search('otters') → 42 otters (2.500 s – 6.000 s)" in titles(text)
    assert "mail('me') (3.000 s – not ended)" in titles(text)
    rects = [rect for group in root.iter(f"{SVG}g") for rect in group.iter(f"{SVG}rect")]
    calls = [rect for rect in rects if "call" in rect.get("class", "")]
    first, second = ({name: float(rect.get(name, "0")) for name in ("x", "y", "width")} for rect in calls)
    assert first["y"] < second["y"]
    assert second["width"] / first["width"] == pytest.approx(2.0, abs=0.01)
    assert not re.search(r"(href|src|url\(|@import)", text.replace('xmlns="http://www.w3.org/2000/svg"', ""))


@pytest.mark.parametrize("kind", ["begin", "end", "instant", "wait"])
def test_what_is_said_is_never_markup(kind: str) -> None:
    timeline = timeline_of(traced((kind, 1.0, None, HOSTILE, HOSTILE), ("begin", 2.0, None, "x", HOSTILE)))
    timeline = replace(timeline, title=HOSTILE)
    root = ElementTree.fromstring(picture.svg(timeline))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "style", "rect", "text", "line", "path", "g"}
    assert any("<script>alert(1)</script> & \"quoted\" ]]>" in title for title in titles(picture.svg(timeline)))

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: set[str] = set()

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.tags.add(tag)
    reader = Reader()
    reader.feed(picture.html(timeline))
    assert "script" not in reader.tags
    assert {"svg", "table", "meta"} <= reader.tags


def test_the_page_has_all_that_is_said_as_text() -> None:
    page = picture.html(timeline_of(AGENT))
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<tr>") == 1 + sum(len(lane.things()) for lane in timeline_of(AGENT).lanes)
    assert "<td>2.500</td><td>6.000</td><td>7</td><td>search(&#x27;otters&#x27;) → 42 otters</td>" in page


def test_what_is_short_can_be_seen() -> None:
    timeline = Timeline("t", 0.0, 1e6, [Lane("model", [Bar(5.0, 5.0, "tokens", "one")])], 0)
    rects = ElementTree.fromstring(picture.svg(timeline)).iter(f"{SVG}rect")
    rect = next(rect for rect in rects if rect.get("class") == "tokens")
    assert float(rect.get("width", "0")) >= 1
    assert LETTERS["tokens"] in plain(timeline, 60)
