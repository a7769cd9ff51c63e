"""A tokenizer of bytes and a chat template."""

import json
from dataclasses import dataclass

from wit_world.toy import BEGIN, CONTEXT_TOKENS, END, SPECIAL, encode


@dataclass
class ModelFacts:
    name: str
    fingerprint: str
    vocabulary_size: int
    context_tokens: int
    page_tokens: int
    stop_tokens: list[int]
    begin_token: int | None


def facts() -> ModelFacts:
    return ModelFacts("toy", "0", 256 + len(SPECIAL), CONTEXT_TOKENS, 16, [END], BEGIN)


def tokenize(text: str, special: bool) -> list[int]:
    return encode(text, special)


def detokenize(tokens: list[int], special: bool) -> str:
    return b"".join(vocabulary(token, 1)[0] for token in tokens if token < 256 or special).decode(errors="replace")


def vocabulary(first: int, count: int) -> list[bytes]:
    return [bytes([t]) if t < 256 else SPECIAL[t - 256].encode() for t in range(first, first + count)]


def chat(messages: str, generate: bool) -> str:
    turns = [f"<|{message['role']}|>{message['content']}<|end|>" for message in json.loads(messages)]
    return "<|begin|>" + "".join(turns) + ("<|assistant|>" if generate else "")
