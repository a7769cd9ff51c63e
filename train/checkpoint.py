"""Checkpoints: everything that a run needs to go on, in safetensors and JSON; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM


@dataclass
class Progress:
    """How far a run has come. `seconds` is processor time of one worker; `curve` holds (step, seconds, mean loss);
    `sampled` holds (seconds, score of each sampled kind)."""

    seed: int
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    dialogues: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    sampled: list[tuple[float, dict[str, float]]] = field(default_factory=list)


def save_checkpoint(
    folder: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], progress: Progress
) -> None:
    """Writes checkpoint.safetensors (fp32 weights and optimizer state) and progress.json, each replaced at once."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": tensor.detach() for name, tensor in model.named_parameters()}
    for which, optimizer in enumerate(optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{which}.{number}.{name}": value for name, value in state.items()}
    save_file(tensors, folder / "checkpoint.new")
    (folder / "progress.new").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    (folder / "checkpoint.new").replace(folder / "checkpoint.safetensors")
    (folder / "progress.new").replace(folder / "progress.json")


def has_checkpoint(folder: Path) -> bool:
    return (folder / "progress.json").exists()


def read_progress(folder: Path) -> Progress:
    values = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    lists = {name: [tuple(point) for point in values[name]] for name in ("curve", "sampled")}
    return Progress(**(values | lists))


def joined(courses: Sequence[Progress]) -> Progress:
    """Of a model that has gone through one course after the other; the seed is the first's."""
    whole = Progress(courses[0].seed)
    for course in courses:
        whole.curve += [(whole.step + step, whole.seconds + seconds, loss) for step, seconds, loss in course.curve]
        whole.sampled += [(whole.seconds + seconds, scores) for seconds, scores in course.sampled]
        whole.step += course.step
        whole.seconds += course.seconds
        whole.tokens += course.tokens
        whole.dialogues += course.dialogues
    return whole


def load_checkpoint(
    folder: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer]
) -> Progress | None:
    """Loads weights and optimizer state in place, returns the progress; None, nothing changed, if there is none."""
    if not has_checkpoint(folder):
        return None
    progress = read_progress(folder)
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for key, tensor in load_file(folder / "checkpoint.safetensors").items():
            owner, name = key.split(".", 1)
            if owner == "model":
                parameters[name].copy_(tensor)
            else:
                which, number, name = name.split(".", 2)
                states[int(which)].setdefault(int(number), {})[name] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return progress
