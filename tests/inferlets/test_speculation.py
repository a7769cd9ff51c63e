"""Speculation: tables that forget, trees that hold together, a pace that pays; and programs, in Wasm and virtual time,
that say the same as without, only sooner."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness import kernel_over, null_link
from cadenza.inferlets.speculation.ngrams import Ngrams, Ways
from cadenza.inferlets.speculation.pace import COMPARED_RATE, FIRST_PLAIN, MOST, PROBE_TOKENS, UNTIL_PAID, Pace
from cadenza.inferlets.speculation.stream import Lookup, Stream
from cadenza.inferlets.speculation.table import Table
from cadenza.inferlets.speculation.tree import Tree, grow
from cadenza.kernel.device.null_device import CostModel, Draw
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.virtual_clock import simulate

LIBRARY = Path(__file__).resolve().parents[2] / "inferlets" / "speculation"


# --- tables ---

def test_the_latest_follower_comes_first_and_the_oldest_goes() -> None:
    table = Table((1,), following=1, followers=2)
    table.learn([1, 2, 1, 3, 1, 2, 1, 4])
    assert table.followers((1,)) == [(4,), (2,)]
    assert table.followers((9,)) == ()


def test_the_leader_that_was_not_used_for_longest_goes() -> None:
    table = Table((1,), following=1, leaders=2)
    table.learn([1, 2])
    table.learn([2, 3])
    table.learn([1, 5])
    table.learn([3, 4])
    assert len(table) == 2
    assert [list(table.followers((leader,))) for leader in (1, 2, 3)] == [[(5,), (2,)], [], [(4,)]]


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(1, 9), max_size=8))
@settings(deadline=None)
def test_learning_piece_by_piece_is_learning_at_once(tokens: list[int], sizes: list[int]) -> None:
    whole, pieces, at = Table(), Table(), 0
    whole.learn(tokens)
    for size in [*sizes, 40]:
        pieces.learn(tokens[: at + size], at)
        at = min(at + size, len(tokens))
    assert pieces.dumps() == whole.dumps()


def test_a_frozen_table_keeps_what_is_common_and_travels_as_text() -> None:
    table = Table.frozen([[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3, 4, 7, 8, 9]], leaders=3, leading=(2,), following=2)
    assert table.followers((1, 2)) == [(3, 4), (3, 5)]
    assert table.followers((7, 8)) == ()
    assert Table.loads(table.dumps()).dumps() == table.dumps()


# --- trees ---

@given(st.randoms(use_true_random=False), st.integers(1, 30))
@settings(deadline=None)
def test_a_draft_is_a_tree_of_what_the_tables_know(source: Random, size: int) -> None:
    table = Table()
    table.learn([source.randrange(3) for _ in range(60)])
    tree = grow((0, 1, 2), [table], size)
    assert len(tree) <= size
    assert all(0 <= parent < number for number, parent in enumerate(tree.parents, 1))
    assert len({*zip(tree.tokens, tree.parents, strict=True)}) == len(tree), "no token twice behind the same one"
    longer = grow((0, 1, 2), [table], size + 5)
    assert longer.tokens[: len(tree)] == tree.tokens


def test_the_way_is_what_is_said() -> None:
    tree = Tree([5, 6, 7, 8, 9], [0, 0, 2, 3, 1])
    assert [tree.way(said) for said in ([6, 7, 8, 1], [5, 9], [6, 9], [], [4])] == [[2, 3, 4], [1, 5], [2], [], []]


def test_what_was_said_before_is_drafted() -> None:
    for drafter in (Stream(Table(), None), Lookup()):
        drafter.follow([1, 2, 3, 4, 5, 6, 9, 2, 3])
        drafter.learn()
        tree = drafter.draft(3)
        assert tree.way([4, 5, 6]) == [1, 2, 3]
    assert len(Stream(None, None).draft(4)) == 0
    assert len(Lookup().draft(4)) == 0


def test_the_model_of_n_grams_backs_off_and_drafts_the_likeliest_ways() -> None:
    model = Ngrams([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [1, 2, 3, 4, 5], [9, 2, 3, 7], [9, 2, 3, 7]])
    assert model.likely((1, 2, 3)) == [(4, 1.0), (7, pytest.approx(0.16))]
    assert model.likely((8, 8, 3)) == [(4, 3 / 5), (7, 2 / 5)], "nothing is known of what the first two mean"
    assert model.likely((5,)) == []
    ways = Ways(model)
    ways.follow([0, 1, 2])
    tree = ways.draft(4)
    assert (tree.tokens[:3], tree.parents[:3]) == ([3, 4, 5], [0, 1, 2])
    assert tree.way([3, 7]) == [1, 4]


@given(st.lists(st.integers(0, 9), max_size=200), st.integers(0, 30))
def test_a_draft_of_the_model_has_no_two_equal_children(text: list[int], size: int) -> None:
    ways = Ways(Ngrams([text, text]))
    ways.follow(text[:3])
    tree = ways.draft(size)
    children = list(zip(tree.parents, tree.tokens, strict=True))
    assert len(children) == len(set(children)) <= size
    assert all(parent < number for number, parent in enumerate(tree.parents, 1))


# --- the pace ---

def paced(accepts: bool, base: float, slope: float, passes: int = 60) -> Pace:
    pace = Pace()
    for _ in range(passes):
        pace.decoded(4, 0.04)
        size = pace.size()
        pace.drafted(size or 8, list(range(1, (size or 8) + 1)) if accepts else [])
        if size:
            pace.passed(size, base + slope * size)
    return pace


def test_the_draft_is_as_large_as_it_pays() -> None:
    assert paced(True, 0.011, 0.0).size() == MOST
    assert paced(True, 0.011, 0.2).size() == 0, "rows that cost as much as steps"
    assert paced(False, 0.011, 0.0).size() == 0


def test_without_gain_decoding_is_plain_until_a_draft_would_pay() -> None:
    pace = paced(False, 0.011, 0.001)
    assert pace.plain_tokens() == UNTIL_PAID
    pace = paced(True, 0.011, 0.001)
    assert [pace.plain_tokens() for _ in range(3)] == [FIRST_PLAIN, 2 * FIRST_PLAIN, 4 * FIRST_PLAIN]
    pace.passed(pace.size(), 0.011)
    assert pace.plain_tokens() == FIRST_PLAIN


def test_nobody_begins_because_he_was_lucky_once() -> None:
    pace = Pace()
    pace.decoded(8, 0.08)
    pace.drafted(8, [1, 2, 3], COMPARED_RATE)
    assert pace.size() == 0
    for _ in range(4):
        pace.drafted(8, [1, 2, 3], COMPARED_RATE)
    assert pace.size() >= 3


def test_a_slow_beginning_does_not_make_drafts_dear_for_ever() -> None:
    pace = Pace()
    for _ in range(40):
        pace.decoded(1, 0.01 if pace.plain_seconds else 1.0)
        pace.drafted(8, [1, 2, 3, 4], COMPARED_RATE)
        pace.size()
    assert pace.size() > 0


def test_now_and_then_it_is_seen_what_a_pass_takes() -> None:
    pace = paced(True, 0.2, 0.0)
    assert pace.size() == 0
    pace.decoded(PROBE_TOKENS, PROBE_TOKENS / 100)
    assert pace.size() > 0


# --- programs ---

PROGRAM = """
import asyncio, json
import cadenza
from cadenza import Context, Run, Sampler, events
from speculation.cacheback import Cacheback
from speculation.ngram_model import NgramModel
from speculation.ngrams import Ngrams
from speculation.prompt_lookup import PromptLookup
from speculation.sharing import Shared
from speculation.table import Table

TEXTS = [[at * 31 % 97 % 40 if at % 23 < 3 else at % 23 for at in range(200 * text, 200 * text + 300)]
         for text in range(1, 4)]
MADE = {"plain": lambda: Run, "cacheback": Cacheback, "lookup": PromptLookup, "shared": Shared,
        "both": lambda: Cacheback(Table.frozen(TEXTS)), "frozen": lambda: Cacheback(Table.frozen(TEXTS), learns=False),
        "ngrams": lambda: NgramModel(Ngrams(TEXTS))}

async def main(args):
    await asyncio.sleep(args.get("late", 0))
    speculation = MADE[args.kind]()
    await asyncio.sleep(args.get("waits", 0))
    for seed in args.seeds:
        async with Context(tokens=[1, 2, 3]) as context:
            began = events.now()
            decoding = context.decode(args.tokens, sampler=Sampler(args.temperature, seed=seed),
                                      stop_tokens=args.stop, stop_sequences=args.sequences)
            decoding.stop()
            decoding = context.decode(args.tokens, sampler=Sampler(args.temperature, seed=seed), stop_tokens=args.stop,
                                      stop_sequences=args.sequences, speculation=speculation)
            while len(decoding.tokens) < args.get("leaves", 1 << 30) and await decoding.token() is not None:
                if len(decoding.tokens) == args.get("interject", -1):
                    decoding.interject([7, 7])
            decoding.stop()
            held = context.file.tokens() if context.file.status().tokens else []
            assert context.tokens[:len(held)] == held, (context.tokens, held)
            more = await context.decode(3, stop_tokens=()).token()
            print(json.dumps([decoding.tokens, decoding.finish, decoding.interjections, more, events.now() - began,
                              getattr(speculation, "accepted", 0)]))
"""
GIVEN: dict[str, Any] = {"seeds": [0], "tokens": 100, "temperature": 0.0, "stop": [], "sequences": []}


def upload() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("main.py", PROGRAM)
        for path in LIBRARY.glob("*.py"):
            archive.writestr(f"speculation/{path.name}", path.read_text())
    return written.getvalue()


async def answers(kernel: Kernel, *asked: dict[str, Any]) -> list[list[Any]]:
    processes = [kernel.spawn(each.get("user", "ada"), "drafts", json.dumps({**GIVEN, **each})) for each in asked]
    found = []
    for process in processes:
        status = await process.ended()
        text = "".join(event.text for event in process.output.read(0)[0])
        assert status.ending == "finished", (status, text)
        found.append([json.loads(line) for line in text.splitlines()])
    return found


def words(draw: Draw) -> int:
    """Phrases that come again, with something new in between; drawn, what the seed says."""
    at = draw.position + 1
    if draw.temperature > 0 and at % 5 == 0:
        return (draw.seed * 7 + draw.draw * draw.draw) % 11
    return at * 31 % 97 % 40 if at % 23 < 3 else at % 23


async def in_kernel(*asked: dict[str, Any], **device: Any) -> list[list[Any]]:
    link = null_link(**{"script": words, "cost": CostModel(fixed_ms=8.0, per_token_ms=0.05), **device})
    async with kernel_over(link) as kernel:
        for user in ("ada", "bob"):
            await kernel.images.add(user, upload(), name="drafts")
        return await answers(kernel, *asked)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """In real time: that takes child processes."""
    asyncio.run(in_kernel({"kind": "plain", "tokens": 1}))


@pytest.mark.parametrize("asked", [
    {}, {"temperature": 1.0, "seeds": [1, 2]}, {"stop": [19], "tokens": 400}, {"sequences": [[20, 21, 22]]},
    {"leaves": 37}, {"leaves": 1}, {"interject": 30}, {"tokens": 1}, {"tokens": 7, "seeds": [0, 0, 0]},
], ids=str)  # fmt: skip
def test_it_says_what_it_says_plainly(asked: dict[str, Any]) -> None:
    kinds = ("plain", "cacheback", "lookup", "shared", "both", "frozen", "ngrams")
    plain, *others = simulate(in_kernel(*({**asked, "kind": kind} for kind in kinds)))
    for other in others:
        if "interject" in asked:
            assert [one[1:3] for one in other] == [["length", 1]] == [one[1:3] for one in plain]
            assert any(other[0][0][at : at + 2] == [7, 7] for at in range(30, 50))
            assert len(other[0][0]) == len(plain[0][0]) == 102
        else:
            assert [one[:4] for one in other] == [one[:4] for one in plain]


def test_what_comes_again_comes_sooner_and_what_fails_not_later() -> None:
    long = {"tokens": 600}
    (plain,), (fast,) = (simulate(in_kernel({"kind": kind, **long})) for kind in ("plain", "cacheback"))
    assert fast[0][0] == plain[0][0]
    assert plain[0][4] / fast[0][4] > 2
    assert fast[0][5] > 200
    random: dict[str, Any] = {"script": None, "vocabulary_size": 24}
    (plain,), (slow,) = (simulate(in_kernel({"kind": kind, **long}, **random)) for kind in ("plain", "cacheback"))
    assert slow[0][0] == plain[0][0]
    assert plain[0][4] / slow[0][4] > 0.97


def test_texts_that_are_frozen_help_from_the_beginning() -> None:
    kinds = ("plain", "cacheback", "both", "frozen", "ngrams")
    found = {kind: simulate(in_kernel({"kind": kind, "tokens": 150}))[0][0] for kind in kinds}
    assert all(said[0] == found["plain"][0] for said in found.values())
    for kind in ("both", "frozen", "ngrams"):
        assert found[kind][5] > found["cacheback"][5], f"{kind}: accepted"
        assert found[kind][4] < found["plain"][4], f"{kind}: seconds"


def test_programs_of_a_user_learn_from_each_other_and_from_nobody_else() -> None:
    """One that was there listens; a newcomer asks; another user's hears nothing."""
    first = {"kind": "shared", "seeds": [0] * 6}
    there, late = ({"kind": "shared", **more, "tokens": 120} for more in ({"waits": 0.4}, {"late": 0.4, "waits": 0.4}))
    (alone,), = simulate(in_kernel(there))
    _, *others = simulate(in_kernel(first, there, late, {**there, "user": "bob"}))
    assert [said[0] for said, in others] == [alone[0]] * 3
    assert others[0][0][5] > alone[5]
    assert others[1][0][5] > alone[5]
    assert others[2][0][5] == alone[5]
