"""Who may do what with a file: its owner, everybody else, and users by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

Rights = frozenset[str]

RIGHTS: Rights = frozenset({"read", "append"})
READ: Rights = frozenset({"read"})
NOTHING: Rights = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """`mine` are the owner's rights, `others` everybody else's; `grants` are what named users may beyond that.

    Never changes; a file is given another. `read` lets one read its tokens and let passes read it; `append` lets one
    change its contents. Its names, mode and grants are the owner's alone to change.
    """

    mine: Rights = RIGHTS
    others: Rights = NOTHING
    grants: Mapping[str, Rights] = field(default_factory=dict)

    def of(self, owner: str, user: str) -> Rights:
        """What `user` may do with a file of `owner`."""
        return self.mine if user == owner else self.others | self.grants.get(user, NOTHING)

    def told(self, owner: str, user: str) -> Mapping[str, Rights]:
        """The grants that `user` may know of: all if he is the owner, else his own."""
        return self.grants if user == owner else {named: self.grants[named] for named in {user} & self.grants.keys()}

    def with_mode(self, mine: Rights, others: Rights) -> Access:
        return replace(self, mine=mine, others=others)

    def with_grant(self, user: str, rights: Rights) -> Access:
        """No rights take the grant back."""
        grants = {**self.grants, user: rights}
        if not rights:
            del grants[user]
        return replace(self, grants=grants)


PRIVATE = Access()                           # of a file in a home, and of one that never had a name
PUBLIC = Access(others=READ)                 # of a file in /shared
