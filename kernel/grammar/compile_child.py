"""The process that tries every grammar before the kernel compiles it: `python -m cadenza.kernel.grammar.compile_child`.

One line of JSON in, one out. First the vocabulary (`tokens`, in base64, and `special`) and `address_bytes`; answered by
{}. Then grammars; answered by `refused`, why or "", and `held_bytes`, about what one takes. What hangs, or takes too
much memory, does so here: the kernel ends this process and starts another.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from base64 import b64decode
from pathlib import Path

from cadenza.kernel.grammar.vocabulary import Vocabulary, compiled


def held_bytes() -> int:
    """Of memory, by this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    first = json.loads(sys.stdin.readline())
    vocabulary = Vocabulary([b64decode(token) for token in first["tokens"]], frozenset(first["special"]))
    tokenizer = vocabulary.tokenizer()
    resource.setrlimit(resource.RLIMIT_AS, (first["address_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("{}", flush=True)
    for line in sys.stdin:
        before = held_bytes()
        matcher = compiled(tokenizer, json.loads(line))
        print(json.dumps({"refused": matcher.get_error(), "held_bytes": held_bytes() - before}), flush=True)


if __name__ == "__main__":
    main()
