"""A second model from a first: more tokens, and more layers, that change nothing in what the first one says.

What the first has learnt of its chats stays; only what is new is to be learnt. New words are merged after all old
merges, so what held none of them is cut as before. A new token begins as the mean of the tokens it is made of; a new
layer adds nothing to the stream until it is trained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from cadenza.inferlets.async_calls.cml import RESERVED
from train import words
from train.model import save_model
from train.tokenizer import load_tokenizer, save_tokenizer

MOST_ROUNDS = 20
PHRASES = (
    "Functions that interrupt one by all at once Please Now First Also then with for of and the is failed left out "
    "unknown Tell Leave Full error user not no found allowed timed service too busy"
)
SIGNS = ('="', '",', '")', "_", "(", "=")


def new_words() -> list[str]:
    """The words that shall be one token each: with the space before them and without, as they are met."""
    plain = [*words.VERBS, *words.OBJECTS, *words.ARGUMENTS, *words.WORDS]
    phrases = PHRASES.split()
    lower = [word for word in phrases if word.islower()]
    capital = [word for word in phrases if word[0].isupper()]
    return [*SIGNS, *plain, *capital, *(f" {word}" for word in [*plain, *lower])]


def grown_tokenizer(old: Tokenizer, wanted: Iterable[str]) -> Tokenizer:
    """The tokenizer with the reserved tokens, and merges that make each wanted word one token. All old ids stay."""
    state = json.loads(old.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    shape = state["added_tokens"][-1]
    for token in (token for token in RESERVED if token not in vocabulary):
        number = len(vocabulary)
        vocabulary[token] = number
        state["added_tokens"].append(shape | {"id": number, "content": token})
    grown = Tokenizer.from_str(json.dumps(state))
    for _ in range(MOST_ROUNDS):
        parts = [grown.encode(word, add_special_tokens=False).tokens for word in wanted]
        longer = [tokens for tokens in parts if len(tokens) > 1]
        if not longer:
            return grown
        for first, second, *_ in longer:
            if [first, second] not in state["model"]["merges"]:
                state["model"]["merges"].append([first, second])
                vocabulary.setdefault(first + second, len(vocabulary))
        grown = Tokenizer.from_str(json.dumps(state))
    raise ValueError(f"after {MOST_ROUNDS} rounds {longer[:3]} are still several tokens")


@torch.no_grad()
def grown_model(old: LlamaForCausalLM, before: Tokenizer, after: Tokenizer, layers: int) -> LlamaForCausalLM:
    """The model with a row for each new token, and so many layers."""
    settings = old.config.to_dict() | {"vocab_size": after.get_vocab_size(), "num_hidden_layers": layers}
    model = LlamaForCausalLM(type(old.config)(**settings))
    rows, known = model.model.embed_tokens.weight, old.model.embed_tokens.weight
    rows[: len(known)] = known
    for number in range(len(known), len(rows)):
        text = after.decode([number], skip_special_tokens=False)
        pieces = before.encode(text, add_special_tokens=False).ids
        rows[number] = known[pieces].mean(0)
        rows[number, 1:] += known[:, 1:].std() * torch.randn(rows.shape[1] - 1)
    inner = {name: weight for name, weight in old.model.state_dict().items() if not name.startswith("embed_tokens")}
    model.model.load_state_dict(inner, strict=False)
    for layer in model.model.layers[len(old.model.layers) :]:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.growth", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with the first model's files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the second one's")
    parser.add_argument("--layers", type=int, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    before = load_tokenizer(options.model)
    after = grown_tokenizer(before, new_words())
    old = LlamaForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    save_model(grown_model(old, before, after, options.layers), options.out)
    save_tokenizer(after, options.out)


if __name__ == "__main__":
    main()
