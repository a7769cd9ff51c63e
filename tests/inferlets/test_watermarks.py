"""Watermarks: found in what was said under the key, also where words were changed; not found anywhere else."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest

from cadenza.inferlets.sampling.methods import green_list, gumbel
from cadenza.inferlets.sampling.methods.distribution import Distribution, Draw, min_p
from cadenza.inferlets.sampling.methods.keyed import chance, windows

KEY, GAMMA, BEFORE, LENGTH, SIZE = "secret", 0.25, 4, 200, 200
Detector = Callable[[list[int], str], float]


def distribution(source: random.Random) -> Distribution:
    """Of a model that is now and then sure of what it says."""
    steepness = source.choice([0.3, 1.0, 3.0])
    return Distribution.of_logits([steepness * source.gauss(0, 1) for _ in range(SIZE)])


def green_text(seed: int) -> list[int]:
    source, draw, said = random.Random(seed), Draw(seed=seed), [0]
    while len(said) < LENGTH:
        said.append(draw(green_list.watermarked(distribution(source), said[-1], KEY, GAMMA, 2.0, 0.02)))
    return said


def gumbel_text(seed: int) -> list[int]:
    source, said = random.Random(seed), [seed]
    while len(said) < LENGTH:
        said.append(gumbel.watermarked(min_p(distribution(source), 0.02), said[-BEFORE:], KEY))
    return said


def green_score(tokens: list[int], key: str) -> float:
    return green_list.detected(tokens, key, GAMMA)


def gumbel_score(tokens: list[int], key: str) -> float:
    return gumbel.detected(tokens, key, BEFORE)


def plain_text(seed: int) -> list[int]:
    source, draw = random.Random(seed), Draw(seed=seed)
    return [draw(min_p(distribution(source), 0.02)) for _ in range(LENGTH)]


def substituted(tokens: list[int], share: float, seed: int) -> list[int]:
    source = random.Random(seed)
    changed = set(source.sample(range(len(tokens)), int(share * len(tokens))))
    return [source.randrange(SIZE) if at in changed else token for at, token in enumerate(tokens)]


WATERMARKS = {"green": (green_text, green_score), "gumbel": (gumbel_text, gumbel_score)}


@pytest.mark.parametrize("name", WATERMARKS)
def test_it_is_found_with_the_key_alone(name: str) -> None:
    write, score = WATERMARKS[name]
    texts = [write(seed) for seed in range(5)]
    assert min(score(text, KEY) for text in texts) > 6
    assert max(abs(score(text, "another")) for text in texts) < 4


@pytest.mark.parametrize("name", WATERMARKS)
def test_other_texts_score_as_chance_does(name: str) -> None:
    _, score = WATERMARKS[name]
    scores = [score(plain_text(seed), KEY) for seed in range(40)]
    mean = sum(scores) / len(scores)
    assert abs(mean) < 0.6
    assert math.sqrt(sum((each - mean) ** 2 for each in scores) / len(scores)) == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("name", WATERMARKS)
def test_it_stands_a_substitution_of_one_in_twenty(name: str) -> None:
    write, score = WATERMARKS[name]
    assert min(score(substituted(write(seed), 0.05, seed), KEY) for seed in range(5)) > 4


@pytest.mark.parametrize("score", [green_score, gumbel_score])
def test_what_is_repeated_is_no_evidence(score: Detector) -> None:
    source = random.Random(1)
    text = [source.randrange(SIZE) for _ in range(20)]
    assert abs(score(text * 20, KEY)) < 4


def test_no_text_scores_nothing() -> None:
    assert green_score([], KEY) == gumbel_score([1, 2], KEY) == 0


def test_green_tokens_are_a_share_and_favoured_by_delta() -> None:
    green = [token for token in range(4000) if green_list.is_green(KEY, GAMMA, 7, token)]
    assert len(green) / 4000 == pytest.approx(GAMMA, abs=0.03)
    flat = Distribution.of_logits([0.0] * 400)
    marked = dict(green_list.watermarked(flat, 7, KEY, GAMMA, 2.0, 0.02).pairs())
    assert {token for token, score in marked.items() if score > min(marked.values())} == {
        token for token in green if token < 400}
    assert max(marked.values()) - min(marked.values()) == pytest.approx(2.0)


def test_the_gumbel_watermark_leaves_the_distribution_as_it_is() -> None:
    kept = Distribution.of_logits([math.log(each) for each in (0.5, 0.3, 0.15, 0.05)])
    counts = Counter(gumbel.watermarked(kept, [1, 2, 3, 4], str(key)) for key in range(4000))
    assert [counts[token] / 4000 for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    assert {gumbel.watermarked(kept, [1, 2], str(key), temperature=0) for key in range(50)} == {0}


def test_numbers_of_a_key_are_even_and_its_own() -> None:
    numbers = [chance(KEY, 1, token) for token in range(4000)]
    assert 0 < min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1
    assert sum(numbers) / 4000 == pytest.approx(0.5, abs=0.02)
    assert chance(KEY, 1, 2) == chance(KEY, 1, 2) != chance(KEY, 2, 1) != chance("k", 2, 1)


def test_each_window_counts_once() -> None:
    assert list(windows([1, 2, 1, 2, 3], 1)) == [(1, 2), (2, 1), (2, 3)]
    assert list(windows([1, 2], 4)) == []
