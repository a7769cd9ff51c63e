"""Who has been served how much: the books that the batcher is fair by.

What users contend for is the part of a step that feeds inputs: so that is what is charged, by the token (virtual token
counters: Sheng et al., arXiv 2401.00588, section 4.1). Decodes are not charged: each has a row in every step, as long
as there are rows. A user who begins to wait is lifted to the least served of those who wait already, so that having
been idle is worth nothing.

    Account: one user ──▶ Line: his work of one priority ──▶ work that waits to be fed
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cadenza.kernel.limits import USERS_REMEMBERED


@dataclass(slots=True, eq=False)
class Account:
    """One user: input tokens `served`, and how many of his works are `waiting` to be fed."""

    owner: str
    served: int = 0
    waiting: int = 0
    lines: dict[int, Line] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Line:
    """One user's work of one priority. `served_at`: loop time when it was last fed, or began to wait after that."""

    account: Account
    priority: int
    waiting: int = 0
    served_at: float = 0.0


class Ledger:
    """The engine sets `now`, in seconds of the event loop, before it asks or tells anything."""

    def __init__(self) -> None:
        self.now = 0.0
        self._accounts: dict[str, Account] = {}
        self._floor = 0                      # what the last of those who waited had been served

    def join(self, owner: str, priority: int) -> Line:
        """One more work of `owner` waits to be fed, in this line."""
        account = self._account(owner)
        line = account.lines.setdefault(priority, Line(account, priority))
        if not account.waiting:
            served = [each.served for each in self._accounts.values() if each.waiting]
            account.served = max(account.served, min(served, default=self._floor))
        if not line.waiting:
            line.served_at = self.now
        account.waiting += 1
        line.waiting += 1
        return line

    def leave(self, line: Line) -> None:
        """One of its works waits no more: it is fed, or over."""
        line.account.waiting -= 1
        line.waiting -= 1
        assert line.waiting >= 0, f"a line of {line.account.owner} was left more often than joined"
        if not line.account.waiting:
            self._floor = line.account.served

    def charge(self, line: Line, tokens: int) -> None:
        """`tokens` of its inputs are in the step that is being formed."""
        line.account.served += tokens
        line.served_at = self.now

    def statistics(self) -> dict[str, float]:
        waiting = [account for account in self._accounts.values() if account.waiting]
        return {"users_waiting": len(waiting), "inputs_waiting": sum(account.waiting for account in waiting)}

    def _account(self, owner: str) -> Account:
        account = self._accounts.get(owner)
        if account is None:
            if len(self._accounts) >= USERS_REMEMBERED:
                self._accounts = {each.owner: each for each in self._accounts.values() if each.waiting}
            account = self._accounts[owner] = Account(owner)
        return account
