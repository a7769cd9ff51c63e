"""Passes and runs under adapters, over a TorchDevice: against transformers with peft, whatever happens to pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.limits import ADAPTERS_PER_USER
from cadenza.kernel.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Busy, Exists, Invalid, LimitExceeded, NotFound, Unsupported
from tests.kernel.model.tiny_adapters import save_tiny_adapter
from tests.kernel.model.tiny_models import TinyModel, save_tiny_model

from .asking import decode, forward, probe, sample
from .desk import Desk, a_pass, a_run, in_loop

TOLERANCE = 1e-4
PAGE_TOKENS = 8
PROMPT = [int(token) for token in np.random.default_rng(5).integers(3, 160, 37)]


class Tiny:
    """A model and two adapters of it."""

    def __init__(self, directory: Path) -> None:
        self.model = save_tiny_model("llama", directory / "model")
        self.blue = save_tiny_adapter(self.model, directory / "blue", 1)
        self.red = save_tiny_adapter(self.model, directory / "red", 2, r=3, use_rslora=True)

    def desk(self, pages: int = 64, **more: Any) -> Desk:
        return Desk(model=TorchDevice(self.model.directory, pages=pages, page_tokens=PAGE_TOKENS, threads=1, **more))


class RebornLink(LocalLink):
    """A device that is made anew when it was lost: it knows no adapter then."""

    def __init__(self, make: Callable[[], TorchDevice]) -> None:
        super().__init__(make())
        self._make = make

    async def restart(self) -> None:
        self._device = self._make()
        self._device.attach(self.host)
        self._gone = ""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


def files_of(adapter: TinyModel) -> tuple[bytes, bytes]:
    return tuple((adapter.directory / name).read_bytes() for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))  # type: ignore[return-value]


async def with_both(desk: Desk, tiny: Tiny, state: Path) -> Process:
    await desk.kernel.adapters.open(state)
    await desk.kernel.adapters.add("ada", "blue", *files_of(tiny.blue))
    await desk.kernel.adapters.add("ada", "red", *files_of(tiny.red))
    return desk.spawn()


async def logits(desk: Desk, process: Process, file: int, tokens: list[int], adapter: str | None) -> np.ndarray:
    """After the last of `tokens`."""
    done = await forward(desk, process, a_pass(file, tokens, probes=[probe(len(tokens) - 1, "logits")],
                                               adapter=adapter))
    return np.asarray(done.probes[0].value)


@in_loop
async def test_runs_side_by_side_say_what_peft_says(tiny: Tiny, tmp_path: Path) -> None:
    async with tiny.desk() as desk:
        process = await with_both(desk, tiny, tmp_path)
        references = {"blue": tiny.blue, "red": tiny.red, None: tiny.model}
        handles = {}
        for adapter in references:
            file = desk.ask(process, "kv.create")
            handles[adapter] = desk.ask(process, "inference.decode", a_run(file, PROMPT, max_tokens=20,
                                                                           adapter=adapter))
        await desk.wait(process, *handles.values())
        for adapter, reference in references.items():
            said: list[int] = []
            while len(said) < 20:
                await desk.wait(process, handles[adapter])
                said += desk.ask(process, "inference.take-tokens", handles[adapter]).tokens
            assert said == reference.greedy(PROMPT, 20)


@in_loop
async def test_a_prefix_is_reused_under_its_own_adapter_only(tiny: Tiny, tmp_path: Path) -> None:
    async with tiny.desk() as desk:
        process = await with_both(desk, tiny, tmp_path)
        await desk.kernel.adapters.add("ada", "blue-too", *files_of(tiny.blue))
        whole = len(PROMPT) // PAGE_TOKENS * PAGE_TOKENS
        for adapter, reused in ((None, 0), ("blue", 0), ("red", 0), ("blue", whole), (None, whole), ("red", whole),
                                ("blue-too", whole)):
            file = desk.ask(process, "kv.create")
            done = await forward(desk, process, a_pass(file, PROMPT, samples=[sample(len(PROMPT) - 1)],
                                                       adapter=adapter))
            reference = {"red": tiny.red, None: tiny.model}.get(adapter, tiny.blue)
            assert (done.reused_tokens, done.tokens) == (reused, reference.greedy(PROMPT, 1)), adapter


@in_loop
async def test_lost_pages_are_computed_again_under_the_adapter_of_the_file(tiny: Tiny, tmp_path: Path) -> None:
    """Pages of a file begun under one adapter are lost: whoever reads them next computes them under that one."""
    async with tiny.desk() as desk:
        process = await with_both(desk, tiny, tmp_path)
        for begun, after in (("blue", "blue"), ("blue", None), ("red", "blue"), (None, "red")):
            said = []
            for lose in (False, True):
                number = desk.ask(process, "kv.create")
                await forward(desk, process, a_pass(number, PROMPT, adapter=begun))
                file = process.files.get(number, "read")
                assert desk.pager.is_recomputable(file)
                if lose:
                    desk.pager.discard(file.pages)
                said.append(await logits(desk, process, number, [9, 4], after))
            np.testing.assert_allclose(said[0], said[1], atol=TOLERANCE)
        assert desk.engine.tokens_recomputed >= 4 * (len(PROMPT) - PAGE_TOKENS)
        assert not desk.pager.is_recomputable(file), "it is of two adapters"


@in_loop
async def test_preempted_runs_go_on_under_their_adapters(tiny: Tiny, tmp_path: Path) -> None:
    async with tiny.desk(pages=14) as desk:
        process = await with_both(desk, tiny, tmp_path)
        asked = [("blue", tiny.blue), ("red", tiny.red), (None, tiny.model)]
        prompt = PROMPT[:17]
        handles = [desk.ask(process, "inference.decode", a_run(desk.ask(process, "kv.create"), prompt, max_tokens=40,
                                                               deliver_every=40, adapter=adapter))
                   for adapter, _ in asked]
        await desk.wait(process, *handles)
        for handle, (_, reference) in zip(handles, asked, strict=True):
            assert desk.ask(process, "inference.take-tokens", handle).tokens == reference.greedy(prompt, 40)
        assert desk.engine.preemptions > 0


@in_loop
async def test_a_device_that_was_lost_has_its_adapters_again(tiny: Tiny, tmp_path: Path) -> None:
    def make() -> TorchDevice:
        return TorchDevice(tiny.model.directory, pages=64, page_tokens=PAGE_TOKENS, threads=1)

    async with Desk(link=RebornLink(make)) as desk:
        process = await with_both(desk, tiny, tmp_path)
        run = desk.ask(process, "inference.decode", a_run(desk.ask(process, "kv.create"), PROMPT, max_tokens=20,
                                                          deliver_every=20, adapter="red"))
        file = desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(file, PROMPT[:-1], adapter="blue"))
        desk.link.fail("struck by lightning")
        said, _ = await decode(desk, process, a_run(file, PROMPT[-1:], max_tokens=20, adapter="blue"))
        assert said == tiny.blue.greedy(PROMPT, 20)
        await desk.wait(process, run)
        assert desk.ask(process, "inference.take-tokens", run).tokens == tiny.red.greedy(PROMPT, 20)
        assert desk.engine.recovery.losses == 1


@in_loop
async def test_adapters_are_a_users_own_and_not_dropped_in_use(tiny: Tiny, tmp_path: Path) -> None:
    async with tiny.desk() as desk:
        ada = await with_both(desk, tiny, tmp_path)
        bob, adapters = desk.spawn("bob"), desk.kernel.adapters
        absent = []
        for name in ("blue", "no-such"):
            with pytest.raises(NotFound) as refusal:
                desk.ask(bob, "inference.forward", a_pass(desk.ask(bob, "kv.create"), [1], adapter=name))
            absent.append(refusal.value.message.replace(name, "…"))
            with pytest.raises(NotFound):
                adapters.drop("bob", name)
        assert absent[0] == absent[1]
        assert (adapters.list("bob"), [each.name for each in adapters.list("ada")]) == ([], ["blue", "red"])
        assert (adapters.get("ada", "red").rank, adapters.get("ada", "red").targets[0]) == (3, "down_proj")
        with pytest.raises(Exists):
            await adapters.add("ada", "blue", *files_of(tiny.red))
        file = desk.ask(ada, "kv.create")
        await forward(desk, ada, a_pass(file, [1, 2], adapter="blue"))
        with pytest.raises(Busy, match="in use"):
            adapters.drop("ada", "blue")
        await adapters.add("bob", "own", *files_of(tiny.blue))
        adapters.drop("ada", "blue")                             # an equal one is loaded still
        with pytest.raises(Busy):
            adapters.drop("bob", "own")
        desk.ask(ada, "kv.close", file)
        adapters.drop("bob", "own")
        assert adapters.statistics() == {"named": 1, "loaded": 1}
        assert len(list(tmp_path.glob("*/*"))) == 1


@in_loop
async def test_what_cannot_be_added_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    config, weights = files_of(tiny.blue)
    other = Path(tmp_path / "other")
    save_tiny_adapter(save_tiny_model("qwen3", tmp_path / "qwen3"), other, target_modules=["q_proj"])
    async with tiny.desk() as desk:
        adapters = desk.kernel.adapters
        with pytest.raises(Unsupported, match="keeps no adapters"):
            await adapters.add("ada", "blue", config, weights)
        await adapters.open(tmp_path / "adapters")
        for name, given, error, message in (
            ("../x", (config, weights), Invalid, "no name"),
            ("x", (b"{", weights), Invalid, "^adapter_config.json is not JSON"),
            ("x", (config, weights[:999]), Invalid, "damaged|cut short"),
            ("x", (config, b""), Invalid, "cut short"),
            ("x", (config, bytes((1 << 28) + 1)), LimitExceeded, "at most"),
            ("x", (other / ADAPTER_CONFIG, other / ADAPTER_WEIGHTS), Invalid, "of another model"),
        ):  # fmt: skip
            read = [each.read_bytes() if isinstance(each, Path) else each for each in given]
            with pytest.raises(error, match=message) as refusal:
                await adapters.add("ada", name, *read)
            assert str(tmp_path) not in refusal.value.message
        assert (adapters.list("ada"), list((tmp_path / "adapters").iterdir())) == ([], [])
        assert ADAPTERS_PER_USER == 16
        for number in range(16):
            await adapters.add("ada", f"n{number}", config, weights)
        with pytest.raises(LimitExceeded) as limit:
            await adapters.add("ada", "one-more", config, weights)
        assert limit.value.limit == "adapters_per_user"


@in_loop
async def test_an_overflowing_adapter_fails_nobody_else(tiny: Tiny, tmp_path: Path) -> None:
    config, _ = files_of(tiny.blue)
    tensors = {name: tensor * 1e30 for name, tensor in load_file(tiny.blue.directory / ADAPTER_WEIGHTS).items()}
    tmp_path.mkdir(exist_ok=True)
    save_file(tensors, tmp_path / "hostile.safetensors")
    async with tiny.desk() as desk:
        process = await with_both(desk, tiny, tmp_path / "adapters")
        await desk.kernel.adapters.add("ada", "hostile", config, (tmp_path / "hostile.safetensors").read_bytes())
        handles = [desk.ask(process, "inference.decode", a_run(desk.ask(process, "kv.create"), PROMPT, max_tokens=20,
                                                               deliver_every=20, adapter=adapter))
                   for adapter in ("hostile", "blue")]
        await desk.wait(process, *handles)
        with pytest.raises(Invalid, match="not finite"):
            desk.ask(process, "inference.take-tokens", handles[0])
        assert desk.ask(process, "inference.take-tokens", handles[1]).tokens == tiny.blue.greedy(PROMPT, 20)


@in_loop
async def test_adapters_are_there_again_at_the_next_boot(tiny: Tiny, tmp_path: Path) -> None:
    async with tiny.desk() as desk:
        await with_both(desk, tiny, tmp_path)
        kept = desk.kernel.adapters.list("ada")
    (tmp_path / ".draft-left-behind").mkdir()
    damaged = next(tmp_path.glob("*/red")) / ADAPTER_WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:-7])
    async with tiny.desk() as desk:
        await desk.kernel.adapters.open(tmp_path)
        assert desk.kernel.adapters.list("ada") == kept[:1]
        assert not list(tmp_path.glob(".draft*"))
        process = desk.spawn()
        said, _ = await decode(desk, process, a_run(desk.ask(process, "kv.create"), PROMPT, max_tokens=5,
                                                    adapter="blue"))
        assert said == tiny.blue.greedy(PROMPT, 5)
        await desk.kernel.adapters.add("ada", "red", *files_of(tiny.red))
        assert desk.kernel.adapters.list("ada")[1].digest == kept[1].digest


@in_loop
async def test_a_device_without_adapters_says_so(tiny: Tiny, tmp_path: Path) -> None:
    async with Desk() as desk:
        await desk.kernel.adapters.open(tmp_path)
        with pytest.raises(Unsupported, match="takes no adapters"):
            await desk.kernel.adapters.add("ada", "blue", *files_of(tiny.blue))
