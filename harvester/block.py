"""One block in a child process: a whole shard's pages into their journal, and the journal into the shard's file.

Only what is plainly good is kept here. A page that is anything else goes back to the parent, which asks for it again
by its own ways, and so does the rest of the block once too many in a row were.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from harvester.attempt import Subject
from harvester.errors import HarvesterError
from harvester.health import Health
from harvester.messages import Block, Failed, Left, Report, Sealed, Told
from harvester.model import Dataset, Page
from harvester.shard import index_record
from harvester.store.durable import Folder
from harvester.store.folder import DatasetFolder
from harvester.store.journal import Journal
from harvester.store.sealed import write_sealed

FAILURES: Final = 8
"""So many failures in a row are no accident: the parent has to find out what they are."""


class Work:
    """A block that is being fetched.

    Args:
        block: which.
        dataset: what it is of.
        health: of the host.

    Attributes:
        subject: what to ask for.
        in_flight: how many of its pages are under way.
        ending: whether it was recalled, or given up.
        ended: whether ``end`` was begun.

    Raises:
        HarvesterError: this process must not, or cannot, write where the shard belongs.
    """

    def __init__(self, block: Block, dataset: Dataset, health: Health) -> None:
        self.block = block
        self.subject = Subject(replace(dataset, charset=block.charset), health)
        self.in_flight = 0
        self.ending = False
        self.ended = False
        here = set(block.here)
        self._todo = deque(page for page in block.layout.pages_of(block.shard) if page not in here)
        self._pending: list[tuple[int, Page]] = []
        self._told: list[Told] = []
        self._returned: list[int] = []
        self._refused: Counter[tuple[str, str]] = Counter()
        self._calls = 0
        self._failures = 0  # in a row
        self._error: HarvesterError | None = None
        self._why = ""
        path = Path(block.path)
        with ExitStack() as held:
            held.enter_context(DatasetFolder(path.parent).helping(block.owner))
            self._folder = held.enter_context(Folder(path))
            self._journal = Journal(self._folder, block.layout, block.shard)
            if here:
                self._journal.replay(repair=False)
            self._held = held.pop_all()

    # -- in the event loop --------------------------------------------------------------------------------------

    def next(self) -> int | None:
        """Return a page to ask for, which is under way then; None if none is left."""
        if self._error is not None:
            self.recall()
        if not self._todo:
            return None
        self.in_flight += 1
        return self._todo.popleft()

    @property
    def over(self) -> bool:
        """Whether every page has come, or was given back."""
        return not (self._todo or self.in_flight)

    def called(self) -> None:
        """Note a call."""
        self._calls += 1

    def fits(self, number: int, page: Page) -> bool:
        """Tell whether an answer is so plain that nobody has to look at it."""
        if page.repairs or not page.rows or page.charset not in {"", self.block.charset}:
            return False
        dataset = self.subject.dataset
        return not self.block.echoes or page.number in {None, number - 1 + dataset.first_page}

    def keep(self, number: int, page: Page) -> None:
        """Take a page."""
        self.in_flight -= 1
        self._failures = 0
        self._pending.append((number, page))
        self._told.append(Told(number, page.rows, page.digest, page.number, page.size, page.total))

    def again(self, page: int, refusal: tuple[str, str] | None = None) -> None:
        """Have a page asked for once more, after a refusal for the rate, or since its call was not made."""
        self.in_flight -= 1
        if refusal is not None:
            self._refused[refusal] += 1
        if self.ending:
            self._returned.append(page)
        else:
            self._todo.append(page)

    def give_back(self, page: int, why: str) -> None:
        """Leave a page to the parent; after too many in a row, all that are left."""
        self.in_flight -= 1
        self._returned.append(page)
        self._failures += 1
        if self._failures >= FAILURES:
            self.recall(why)

    def recall(self, why: str = "") -> None:
        """Ask for nothing more; ``why``, if it was not the parent's wish."""
        self.ending = True
        self._why = self._why or why
        self._returned += self._todo
        self._todo.clear()

    def report(self) -> Report | None:
        """Return what has happened since the last report; None if nothing has."""
        if not (self._told or self._returned or self._calls):
            return None
        report = Report(
            number=self.block.number,
            pages=self._told,
            calls=self._calls,
            refused=[(*refusal, times) for refusal, times in self._refused.items()],
            returned=self._returned,
        )
        self._told, self._returned, self._calls, self._refused = [], [], 0, Counter()
        return report

    def batch(self) -> Callable[[], None]:
        """Hand over everything pending; return the work that makes it durable."""
        pending, self._pending = self._pending, []
        return partial(self._commit, pending)

    def end(self) -> Callable[[], Sealed | Left | Failed]:
        """Hand over everything pending; return the work that ends the block, and then what has come of it."""
        self.ended = True
        pending, self._pending = self._pending, []
        return partial(self._end, pending)

    # -- in the writer's thread ---------------------------------------------------------------------------------

    def _commit(self, pending: list[tuple[int, Page]]) -> None:
        if not pending or self._error is not None:
            return
        try:
            if self._journal.append(pending):
                self._folder.sync()
        except HarvesterError as error:
            self._error = error  # nothing is tried again; the parent is told at the end

    def _end(self, pending: list[tuple[int, Page]]) -> Sealed | Left | Failed:
        block = self.block
        try:
            self._commit(pending)
            if self._error is None and self._journal.held == len(self._journal.pages):
                with self._journal.whole(self._journal.pages) as (records, lines):
                    entry = write_sealed(self._folder, block.layout, block.shard, records, lines)
                return Sealed(block.number, entry, b"".join(map(index_record, records)))
        except HarvesterError as error:
            self._error = error
        finally:
            self._held.close()
        if self._error is not None:
            return Failed(block.number, "; ".join([self._error.message, *self._error.causes]), self._error.hint)
        return Left(block.number, self._why)
