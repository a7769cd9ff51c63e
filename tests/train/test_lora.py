"""From the generator to an adapter that our device serves, on a small model of random weights."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

from cadenza.kernel.device.batch import PROBE_LOGITS
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.directory import BUNDLED
from tests.kernel.device.driver import Driver, File, Probe, Row
from train.chat_data import draw_dialogues, write
from train.lora import NOT_LEARNT, RECORD, Recipe, collate, encode, read_examples, share_of_rate, tune
from train.tasks import ASYNCHRONOUS
from train.world import Split

RECIPE = Recipe(rank=4, alpha=16, rate=2e-2, epochs=2, rows=4, length=700)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(BUNDLED)


@pytest.fixture(scope="module")
def model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the bundled model's tokenizer."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.2,
    )
    directory = tmp_path_factory.mktemp("checkpoint")
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_the_generator_writes_chats_in_textual_cml(tmp_path: Path) -> None:
    assert write(tmp_path / "a.jsonl", draw_dialogues(30, 1, Split.TRAIN)) == 30
    write(tmp_path / "b.jsonl", draw_dialogues(30, 1, Split.TRAIN))
    text = (tmp_path / "a.jsonl").read_text()
    assert text == (tmp_path / "b.jsonl").read_text()
    chats = [json.loads(line) for line in text.splitlines()]
    kinds = {chat["kind"] for chat in chats}
    assert {"single", "parallel", "multi_step", "interrupts"} <= kinds <= {task.kind for task in ASYNCHRONOUS}
    assert all([message["role"] for message in chat["messages"]][-2:] == ["user", "assistant"] for chat in chats)
    said = [chat["messages"][-1]["content"] for chat in chats]
    assert all("[CALL]" in each and "[INTR]" in each and "[END]" in each for each in said)
    assert [dialogue.kind for dialogue in draw_dialogues(3, 1, Split.TRAIN, ["facts"])] == ["facts"] * 3


def test_the_assistants_words_alone_are_learnt(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Mail Mara."},
        {"role": "assistant", "content": "[CALL]m[HEAD]mail(\"Mara\")[END]So[INTR]m[HEAD]sent[END] it is."},
        {"role": "user", "content": "Thank you."}, {"role": "assistant", "content": "Yes."},
    ]
    example = encode(tokenizer, messages)
    assert tokenizer.decode(example.ids) == tokenizer.apply_chat_template(messages, tokenize=False)
    learnt = [label for label in example.labels if label != NOT_LEARNT]
    assert tokenizer.decode(learnt) == '[CALL]m[HEAD]mail("Mara")[END]So it is.<|end|>Yes.<|end|>'
    batch = collate([example, encode(tokenizer, messages[:3])])
    assert batch["labels"].shape == batch["input_ids"].shape == (2, len(example.ids))
    assert int(batch["attention_mask"].sum()) == int((batch["attention_mask"][1]).sum()) + len(example.ids)
    assert int(batch["labels"][1, -1]) == NOT_LEARNT


def test_a_template_that_rewrites_turns_is_refused(tokenizer: Any) -> None:
    rewriting: Any = transformers.AutoTokenizer.from_pretrained(BUNDLED)
    rewriting.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match="differently"):
        encode(rewriting, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])


def test_the_rate_rises_and_falls() -> None:
    shares = [share_of_rate(step, 100, 0.1) for step in range(100)]
    assert shares[9] == shares[10] == 1.0
    assert shares[:10] == sorted(shares[:10])
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert (shares[0], round(shares[-1], 3)) == (0.1, 0.0)


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tuned")
    write(directory / "chats.jsonl", draw_dialogues(24, 2, Split.TRAIN))
    tune(model, directory / "chats.jsonl", directory / "adapter", RECIPE)
    return directory / "adapter"


def test_training_lowers_the_loss_and_is_recorded(adapter: Path) -> None:
    record = json.loads((adapter / RECORD).read_text())
    losses = record["losses"]
    assert record["chats"] + record["longer"] == 24
    assert record["recipe"]["rank"] == 4
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert min(losses) > 0


def test_what_was_trained_is_served(model: Path, adapter: Path, tokenizer: Any) -> None:
    """Our device says of each token what transformers with peft says, and another thing than without the adapter."""
    examples, _ = read_examples(tokenizer, adapter.parent / "chats.jsonl", RECIPE.length)
    tokens = examples[0].ids[:120]
    plain: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        before = plain(torch.tensor([tokens])).logits[0].numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            tuned = peft.PeftModel.from_pretrained(plain, adapter).eval()
        after = tuned(torch.tensor([tokens])).logits[0].numpy()
    with TorchDevice(model, pages=64, page_tokens=16, threads=1) as device:
        device.load_adapter(0, adapter)
        rows = [Row(File(), tokens, probes=[(n, Probe(PROBE_LOGITS)) for n in range(len(tokens))], adapter=slot)
                for slot in (0, -1)]
        answers = Driver(device).step(rows)
        served = [np.stack([values for values, _ in answer.probes]) for answer in answers]
    np.testing.assert_allclose(served[0], after, atol=1e-4)
    np.testing.assert_allclose(served[1], before, atol=1e-4)
    assert np.abs(after - before).max() > 0.1
