"""What is to be known of a model: for programs (`ModelFacts`) and for an operator who asks before serving it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from cadenza.kernel.model.chat import ChatTemplate
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.fingerprint import fingerprint
from cadenza.kernel.model.tensors import needed_tensors, stored_tensors, tensor_faults
from cadenza.kernel.model.tokenizer import Tokenizer
from cadenza.kvfs.errors import CadenzaError


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What `model.facts` tells a program, but for the page size, which is the device's."""

    name: str
    fingerprint: str
    vocabulary_size: int
    context_tokens: int
    stop_tokens: tuple[int, ...]
    begin_token: int | None

    @classmethod
    def of(cls, name: str, directory: Path, config: ModelConfig, tokenizer: Tokenizer) -> ModelFacts:
        """Reads every weight once, for the fingerprint; blocks."""
        return cls(
            name,
            fingerprint(directory, config),
            config.vocabulary_size,
            config.context_tokens,
            tuple(tokenizer.stop_tokens),
            tokenizer.begin_token,
        )


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What `describe` found. Zero and "" stand for what could not be read; `problems` is empty for a sound model."""

    directory: Path
    family: str = ""
    dtype: str = ""
    layers: int = 0
    vocabulary_size: int = 0
    context_tokens: int = 0
    parameters: int = 0               # values of the needed tensors
    weight_bytes: int = 0             # of the needed tensors, as stored
    kv_bytes_per_token: int = 0       # all layers, held in `dtype`
    chat_template: bool = False
    problems: tuple[str, ...] = ()


def describe(directory: Path) -> ModelReport:
    """Looks at everything but the weights' values, and collects faults in place of raising the first."""
    try:
        config = ModelConfig.from_directory(directory)
    except CadenzaError as fault:
        return ModelReport(directory, problems=(fault.message,))
    problems: list[str] = []
    needed = needed_tensors(config)
    template = _has_template(directory, problems)
    _try_tokenizer(directory, config, problems)
    return ModelReport(
        directory=directory,
        family=config.family,
        dtype=config.dtype,
        layers=config.layers,
        vocabulary_size=config.vocabulary_size,
        context_tokens=config.context_tokens,
        parameters=sum(prod(shape) for shape in needed.values()),
        weight_bytes=_weight_bytes(directory, config, problems),
        kv_bytes_per_token=config.kv_bytes_per_token(config.dtype),
        chat_template=template,
        problems=tuple(problems),
    )


def _weight_bytes(directory: Path, config: ModelConfig, problems: list[str]) -> int:
    try:
        stored = stored_tensors(directory)
    except CadenzaError as fault:
        problems.append(fault.message)
        return 0
    problems.extend(tensor_faults(config, stored))
    return sum(stored[name].size for name in needed_tensors(config) if name in stored)


def _has_template(directory: Path, problems: list[str]) -> bool:
    try:
        return ChatTemplate.from_directory(directory) is not None
    except CadenzaError as fault:
        problems.append(fault.message)
        return False


def _try_tokenizer(directory: Path, config: ModelConfig, problems: list[str]) -> None:
    try:
        Tokenizer.from_directory(directory, config)
    except CadenzaError as fault:
        problems.append(fault.message)
