"""Work in hand: what of it there is room for, with all that it reads and its inputs, and a page more for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cadenza.kvfs.errors import NoPages

if TYPE_CHECKING:
    from cadenza.kernel.ledger import Ledger
    from cadenza.kernel.pager import Pager
    from cadenza.kernel.passes import Work
    from cadenza.kernel.reclaim import Reclaimer


class Admission:
    """So nobody is let in only to push another out."""

    def __init__(self, pager: Pager, reclaimer: Reclaimer, ledger: Ledger) -> None:
        self.in_hand: set[Work] = set()
        self._arriving: set[Work] = set()        # of them: all that may have pages to come, and maybe others
        self._pager = pager
        self._reclaimer = reclaimer
        self._ledger = ledger

    def admit(self, work: Work) -> None:
        """Raises NoPages if there is no room for it."""
        self._pager.part_lost(work)
        self._arriving = {each for each in self._arriving if each.prefilling or each.missing or not each.present}
        pool, promised = self._pager.pool, len(self.in_hand) + sum(map(self._to_come, self._arriving))
        needed = self._to_come(work)
        if needed + promised > pool.free and not self._reclaimer.make_room(needed + promised, work) and (
                promised or needed > pool.free):
            raise NoPages(f"a pass needs {needed} KV pages, and {pool.free} of {pool.total} are free: wait, close or "
                          "truncate files, or start the daemon with more pages", "pages", needed)
        work.missing = self._pager.lost_tokens(work)
        work.admitted = True
        self.in_hand.add(work)
        self._arriving.add(work)
        work.trace.admitted(self._ledger.now, len(work.inputs) - work.fed if work.prefilling else 0, work.reused)

    def feed_again(self, work: Work) -> None:
        """It is in hand, and has inputs to be fed once more."""
        self._arriving.add(work)

    def dismiss(self, work: Work) -> None:
        """It is over, or makes room. Idempotent."""
        self.in_hand.discard(work)
        self._arriving.discard(work)

    def dismiss_all(self) -> None:
        self.in_hand.clear()
        self._arriving.clear()

    def _to_come(self, work: Work) -> int:
        """Pages that it will ask for until its inputs are fed."""
        absent = 0 if work.present and not work.missing else len(self._pager.absent_pages(work))
        return absent + (work.growth() if work.prefilling or not work.admitted else 0)
