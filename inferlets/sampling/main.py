"""Ways to choose the next token, each from a paper or a proposal, each a file of `methods`.

    cadenza run inferlets/sampling --method typical --prompt "Once upon a time"

Arguments: `method`, its name (typical). `prompt`, a text to go on with, or `question` for a chat. `max_tokens` (64),
`temperature` (1 unless the method says otherwise), `seed` (0), `adapter` (none). The rest is the method's own, and
stands at the top of its file. Prints what was said.
"""

import importlib

import cadenza

METHODS = (
    "classifier_free", "contrastive", "dry", "eta", "green_list", "gumbel", "mirostat", "self_consistency",
    "top_n_sigma", "tree_of_thought", "typical", "xtc",
)  # fmt: skip


async def main(args: cadenza.Arguments) -> None:
    name = args.get("method", "typical")
    if name not in METHODS:
        raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
    await importlib.import_module(f"methods.{name}").main(args)
