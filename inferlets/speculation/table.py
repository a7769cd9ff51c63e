"""The table: from the last tokens, the leader, to what came behind them before, its followers.

    (def, main, "(")  ─▶  [ (args, ":", …)  (")", ":", …) ]         the latest first; of each leader only so many
       …                                                            and of all leaders only the latest used

Both levels are least-recently-used (Ma, Gim & Zhong 2025, "Cacheback: Speculative Decoding With Nothing But Cache",
arXiv 2511.21699, section 3). Leaders of several lengths lie in one table: a longer one is surer, a shorter one is
found more often.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

Tokens = tuple[int, ...]

LEADING = (3, 2, 1)         # lengths of leaders, the longest first
FOLLOWING = 2              # tokens of a follower
LEADERS = 16_384
FOLLOWERS = 4              # of a leader


class Table:
    """Learns whatever it is told, and forgets what was not used for longest."""

    def __init__(self, leading: Sequence[int] = LEADING, following: int = FOLLOWING, leaders: int = LEADERS,
                 followers: int = FOLLOWERS) -> None:  # fmt: skip
        self.leading, self.following = tuple(leading), following
        self._leaders, self._followers = leaders, followers
        self._table: dict[Tokens, list[Tokens]] = {}              # the least recently used first

    def __len__(self) -> int:
        return len(self._table)

    def followers(self, leader: Tokens) -> Sequence[Tokens]:
        """The likeliest first; of a leader that is not there, none."""
        return self._table.get(leader, ())

    def learn(self, tokens: Sequence[int], first: int = 0) -> None:
        """All that `tokens` show from `first` on, with what is before for leaders."""
        for end in range(max(first, self.following), len(tokens)):
            self._learn(tokens, end + 1)

    def _learn(self, tokens: Sequence[int], end: int) -> None:
        """The follower that ends there, behind every leader."""
        table, start = self._table, end - self.following
        follower = tuple(tokens[start:end])
        for length in self.leading:
            if length > start:
                continue
            leader = tuple(tokens[start - length : start])
            known = table.pop(leader, None)
            if known is None:
                table[leader] = [follower]
                if len(table) > self._leaders:
                    del table[next(iter(table))]
                continue
            table[leader] = known                                 # now the latest used
            if known[0] != follower:
                if follower in known:
                    known.remove(follower)
                elif len(known) == self._followers:
                    known.pop()
                known.insert(0, follower)

    @classmethod
    def frozen(cls, texts: Iterable[Sequence[int]], leaders: int = 4096, leading: Sequence[int] = LEADING,
               following: int = FOLLOWING, followers: int = FOLLOWERS) -> Table:  # fmt: skip
        """Of a corpus, its texts as tokens: the commonest leaders, each with its commonest followers. What occurs once
        is left out."""
        counts: Counter[tuple[Tokens, Tokens]] = Counter()
        for text in texts:
            for start in range(1, len(text) - following + 1):
                follower = tuple(text[start : start + following])
                counts.update((tuple(text[start - length : start]), follower) for length in leading if length <= start)
        total: Counter[Tokens] = Counter()
        for (leader, _), count in counts.items():
            total[leader] += count
        kept = {leader for leader, count in total.most_common(leaders) if count > 1}
        table = cls(leading, following, leaders, followers)
        for (leader, follower), _ in counts.most_common():
            if leader in kept:
                known = table._table.setdefault(leader, [])
                if len(known) < followers:
                    known.append(follower)
        return table

    def dumps(self) -> str:
        """All of it as text, to be shipped beside a program."""
        lines = [[leader, known] for leader, known in self._table.items()]
        shape = [self.leading, self.following, self._leaders, self._followers]
        return json.dumps([shape, lines], separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> Table:
        """What `dumps` wrote."""
        shape, lines = json.loads(text)
        table = cls(*shape)
        table._table = {tuple(leader): [tuple(follower) for follower in known] for leader, known in lines}
        return table
