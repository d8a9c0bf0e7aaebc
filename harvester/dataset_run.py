"""One dataset in one run: its pages on the way from the platform to the keeper, phase by phase, and its result.

The event loop brings answers in (``accept``) and hands pages over (``batch``); what waits for the disk is the keeper's.
A run goes through phases. First the frontier finds the pages and their end. When all are here, they are read a second
time as far as a proof needs; what has changed meanwhile is replaced, and the frontier looks at the end once more.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, Final

from msgspec import Struct, convert, to_builtins
from msgspec.structs import replace

from harvester import __version__
from harvester.attempt import Subject
from harvester.certificate import EndFacts, Evidence, ReadAgain, SizeFacts, TotalFacts, share_below, wanted_again
from harvester.errors import Exit, UsageError
from harvester.events import Counts
from harvester.frontier import EMPTY, FAILURE, End, Frontier
from harvester.health import Health
from harvester.keeper import Batch, Keeper
from harvester.ledger import Ledger
from harvester.messages import Told
from harvester.model import About, Dataset, Kind, Page, Verdict, page_digest
from harvester.outlook import OUTER, Outlook, outlook
from harvester.page_size import PageSize
from harvester.second_reading import ROUNDS, Check, SecondReading
from harvester.shard import Compression
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Kept, Snapshot

BEIJING: Final = timezone(timedelta(hours=8))
_NOTHING: Final = Page(b"", 0)
GUESSED: Final = "charset guessed"  # the repair of a page whose charset nobody declared


class Stop(Struct, frozen=True, kw_only=True):
    """Why a dataset gets no more calls in this run: the exit code, the words for it, what a refusal is about."""

    exit: Exit
    message: str
    hint: str = ""
    about: About = ""


class DatasetRun:
    """The state of one dataset while it is mirrored.

    Args:
        dataset: what is mirrored.
        folder: where, locked.
        snapshot: which is filled.
        health: of its host.
        layout: rows per shard and compression of a snapshot that has no layout yet.
        ledger: where its calls are counted.
        planning: only the end is looked for; nothing is judged or published.

    Raises:
        UsageError: the job file names another charset than the one the snapshot was read with.
    """

    def __init__(
        self,
        dataset: Dataset,
        folder: DatasetFolder,
        snapshot: Snapshot,
        health: Health,
        layout: tuple[int, Compression],
        *,
        ledger: Ledger | None = None,
        planning: bool = False,
    ) -> None:
        self.subject = Subject(_with_charset(dataset, snapshot), health)
        self.snapshot = snapshot
        self.keeper = Keeper(dataset, folder, snapshot, layout)
        self.ledger = ledger
        self.planning = planning
        self.frontier = self._new_frontier()
        self.reading: SecondReading | None = None
        self.counts = Counts()
        self.stop: Stop | None = None
        self.concluded = False
        self.changing = False  # from one phase to the next
        self.unreadable = False
        self._given_up = ""
        self.limited = 0  # answers over the limit since the last good one
        self._failing: dict[str, set[int]] = {}  # pages that failed and might be past the end, by code
        self.failures: dict[int, str] = {}  # why pages stayed open
        self.last_rows_page = self.last_rows = 0  # the highest page seen in this run, and its rows
        self._size = PageSize(dataset.page_size or 0)
        self._layout_size = 0
        self._guessed = False  # whether an answer looked like another charset than it said, or said none
        self._again = ReadAgain()
        self._check: Check | None = None  # that an earlier run has begun
        self._rounds = 0
        self._mended = 0
        self._not_reread = 0  # pages of the second reading that could not be read when it mattered
        self._pending: list[tuple[int, Page]] = []
        self._unread: list[tuple[int, bytes, str]] = []
        self._earlier_calls = 0
        self._noted = 0  # calls that the ledger was told of
        self._read: dict[str, str] = {}  # from when and until when pages were read, before this run
        self._answers: list[datetime] = []  # the first and the last in this run
        self._take_over(snapshot.recover())

    # -- what others ask ----------------------------------------------------------------------------------------

    @property
    def dataset(self) -> Dataset:
        """What is mirrored, with its charset as soon as that is known."""
        return self.subject.dataset

    @property
    def health(self) -> Health:
        """Of the host that serves the dataset."""
        return self.subject.health

    @property
    def pages(self) -> Frontier | SecondReading:
        """The pages to ask for in the present phase."""
        return self.reading or self.frontier

    @property
    def metered(self) -> bool:
        """Whether every call is paid for: then one is under way at a time."""
        return self.dataset.max_calls is not None

    @property
    def stopped(self) -> bool:
        """Whether no more calls are wanted."""
        return self.stop is not None

    @property
    def finished(self) -> bool:
        """Whether the dataset needs nothing more in this run."""
        return self.stopped or self.concluded

    @property
    def published(self) -> bool:
        """Whether readers see the snapshot."""
        return self.keeper.published

    @property
    def planned(self) -> bool:
        """Whether the end, which a plan looks for, has been found."""
        return self.planning and self.frontier.supposed() is not None

    def outlook(self, rate: float | None) -> Outlook | None:
        """Say what a run will take from here on, at so many calls a second; None if the end is not known."""
        end = self.frontier.supposed()
        if end is None or not self.planning:
            return None
        totals = self.frontier.totals
        return outlook(
            self.dataset,
            pages=end.last,
            missing=max(0, end.last - self.frontier.done_until(end.last)),
            page_size=self._size.rows,
            last_rows=self.last_rows if self.last_rows_page == end.last else 0,
            total=None if totals is None else totals[2],
            left=None if self.ledger is None else self.ledger.state().left,
            rate=rate,
            confirming=self._confirming(end),
            empty_end=end.how == EMPTY,
        )

    def _confirming(self, end: End) -> int:
        """Return the calls that a run will make to establish the end: the page after the last one, and what failed."""
        if self.frontier.end is not None or not self.frontier.beyond:
            return 0
        failed = sum(self.frontier.beyond.get(page, "").startswith(FAILURE) for page in end.beyond)
        return failed + (not self.metered)

    @property
    def calls(self) -> int:
        """Calls for this snapshot, in this run and those before it."""
        return self._earlier_calls + self.counts.calls

    # -- continuing ---------------------------------------------------------------------------------------------

    def _new_frontier(self) -> Frontier:
        return Frontier(paged=self.dataset.paging == "page", frugal=self.metered, streaming=not self.planning)

    def _take_over(self, kept: Iterable[Kept]) -> None:
        """Continue where the snapshot was left."""
        kept, snapshot, frontier, notes = list(kept), self.snapshot, self.frontier, self.snapshot.notes
        self._earlier_calls = notes.get("calls", 0)
        self._read = notes.get("read", {})
        frontier.echoes = notes.get("echoes")
        if snapshot.layout is not None:
            self._layout_size = snapshot.layout.page_size
            self._size.first(notes.get("rows_on_page_1", 0), notes.get("size_on_page_1"))
            self._size.short = notes.get("short_pages", 0)
            frontier.page_size = self._size.rows
        if totals := notes.get("totals"):
            frontier.restore_totals(tuple(totals), frontier.page_size)
        self._restore(kept, holes=set(notes.get("holes", [])))
        frontier.restore_beyond({int(page): how for page, how in notes.get("beyond", {}).items()})
        if (check := notes.get("check")) and not kept:  # what is not sealed has come after it
            self._check = convert(check, Check)
        if snapshot.end is not None:
            frontier.restore_end(End(snapshot.end["last"], snapshot.end["how"], tuple(snapshot.end["beyond"])))
        self.counts.kept = frontier.done

    def _restore(self, kept: Iterable[Kept], holes: set[int], without: frozenset[int] = frozenset()) -> None:
        """Tell the frontier what is kept, sealed or in journals."""
        frontier, digests = self.frontier, self.snapshot.edge_digests()
        for entry in self.snapshot.sealed.values():
            first = entry.first
            for page in sorted(page for page in without if entry.first <= page <= entry.last):
                if first < page:
                    frontier.restore(first, page - 1)
                first = page + 1
            if first <= entry.last:
                frontier.restore(first, entry.last)
        for found in kept:
            frontier.restore(found.page, found.page)
            digests[found.page] = found.digest
            self.keeper.recovered(found)
            if not found.rows:
                holes.add(found.page)
            if found.page == 1 and not self._size.rows:  # it came after the notes were saved
                self._size.first(found.rows)
                frontier.page_size, frontier.echoes = found.rows, False
        witness = frontier.witness
        if witness not in digests and (digest := self.snapshot.digest_of(witness)):
            digests[witness] = digest
        frontier.restore_holes(sorted(holes - without))
        frontier.restore_digests(digests)

    # -- answers ------------------------------------------------------------------------------------------------

    def accept(self, number: int, page: Page, at: datetime) -> bool:
        """Take in an answer; return whether the page is kept and a commit is due."""
        self._answers[1:] = [at]
        self.limited = 0
        if GUESSED in page.repairs and not (self.dataset.charset or self._guessed):
            self._guessed = True  # one answer may be garbled: the next one decides
            self.pages.put_back(number)
            return False
        if page.charset and not self.dataset.charset:
            self.subject.dataset = replace(self.dataset, charset=page.charset)
        kept = self._accept_again(number, page) if self.reading is not None else self._accept_first(number, page)
        if kept is not None:
            self._pending.append((number, kept))
            self.counts.rows += kept.rows
        return kept is not None

    def _accept_first(self, number: int, page: Page) -> Page | None:
        if not self._take_in(number, page):
            return None
        return page if not self.frontier.holes or number not in self.frontier.holes else _NOTHING

    def _take_in(self, number: int, page: Page | Told) -> bool:
        """Tell the frontier of an answer; return whether the page has to be kept."""
        frontier, size = self.frontier, self._size
        if number == 1 and page.rows:
            size.first(page.rows, page.size)
            self._layout_size = self._layout_size or max(page.rows, page.size or 0)
        elif page.rows and (why := size.changed(number, page.rows, page.size, mid_list=number < frontier.certain)):
            self._give_up(why)
        stated = self._stated(page)
        kept = frontier.arrived(number, page.rows, page.digest, total=page.total, echo=stated)
        if page.rows and number == frontier.witness:
            self.last_rows_page, self.last_rows = number, page.rows
        if frontier.endless:
            holes = f"{len(frontier.holes):,} pages stayed empty although rows follow"
            rows = f"the list does not end: page {number:,} still has rows of its own"
            self._give_up(holes if frontier.too_many_holes else rows, moved=False)
        self.counts.pages += kept
        return kept

    def _stated(self, page: Page | Told) -> int | None:
        """Return the number that an answer says its page has, counted from 1."""
        return None if page.number is None else page.number - self.dataset.first_page + 1

    def _accept_again(self, number: int, page: Page) -> Page | None:
        """Compare a page with what is kept of it; return it if it has changed."""
        assert self.reading is not None  # noqa: S101 - for the type checker; the caller has looked
        self.frontier.saw_total(page.total)
        if self.frontier.echoes and self._stated(page) not in {None, number}:
            page = _NOTHING  # another page came: this one is not there
        if number == 1 and self.frontier.done > 1 and page.rows and 0 < self._size.rows != page.rows:
            self._give_up(f"page 1 has {page.rows:,} rows now, it had {self._size.rows:,} before")
        expected = self.snapshot.digest_of(number) or page_digest(b"")
        same = page.digest == expected
        self.reading.arrived(number, same=same, rows=page.rows)
        if not same and page.rows and number in self.frontier.holes:
            self.frontier.holes.remove(number)
        return None if same or not page.rows or number > self.frontier.done else page

    # -- pages that another process fetches ---------------------------------------------------------------------

    @property
    def lendable(self) -> bool:
        """Whether whole shards may be fetched by other processes now."""
        settled = self.reading is None and not self._rounds and not self.changing and self.frontier.first_done
        return settled and not (self.finished or self.metered or self.planning or self.health.down)

    def prepare(self) -> Callable[[], bool]:
        """Return the work without which no other process may write shards: layout and charset become durable."""
        return partial(self.keeper.prepare, self._batch())

    def hand_over(self, shard: int) -> Callable[[], None]:
        """Return the work that leaves the pages of a shard which are here to another process."""
        return partial(self.keeper.hand_over, self._batch(), shard)

    def told(self, pages: Iterable[Told], at: datetime) -> None:
        """Take in pages that another process keeps."""
        self._answers[1:] = [at]
        self.limited = 0
        for page in pages:
            if self._take_in(page.page, page):
                self.counts.rows += page.rows

    def past_end(self, page: int, verdict: Verdict, *, final: bool) -> bool:
        """Tell whether a failure is taken for a sign that the list has ended.

        It must be the platform's word on this one page: no rate, credential or permission, nothing that a network in
        between says. One that may pass has to come twice, or have come from another page past the end.
        """
        if self.reading is not None or verdict.kind not in {Kind.REFUSED, Kind.AGAIN} or verdict.concerns == "app":
            return False
        if verdict.about == "permission" or verdict.quarantine or verdict.then == "refused":
            return False
        if verdict.kind is Kind.AGAIN and not final and page > self.frontier.certain:
            alike = self._failing.setdefault(verdict.code, set())
            again = page in alike and (tries := self.subject.failures.get(page)) is not None and tries.count > 1
            alike.add(page)
            if verdict.code.startswith(("HTTP", "no ")) or not (again or len(alike) > 1):
                return False
        return self.frontier.failed(page, verdict.code)

    def set_aside(self, page: int, body: bytes, why: str) -> None:
        """Keep an answer that nobody could read, for somebody to look at."""
        self.unreadable = True
        self._unread.append((page, body, why))

    def _give_up(self, why: str, *, moved: bool = True) -> None:
        """Refuse to go on with a snapshot whose pages do not fit together."""
        if self.stop is None:
            told = f"the page size changed while pages were read, so every row boundary moved: {why}" if moved else why
            self.stop = Stop(
                exit=Exit.NOT_PROVEN, message=told, hint="the snapshot is kept, not published; --fresh starts over"
            )
            self._given_up = told

    # -- phases -------------------------------------------------------------------------------------------------

    def batch(self) -> Callable[[], None]:
        """Hand over everything pending; return the work that makes it durable."""
        return partial(self._commit, self._batch(), self.counts.calls)

    def settle(self) -> Callable[[], None]:
        """Return the work that ends the present phase, whose pages are all here."""
        end = self.frontier.end
        return self.batch() if end is None else partial(self.keeper.settle, self._batch(), to_builtins(end))

    def _commit(self, batch: Batch, calls: int) -> None:
        self.keeper.commit(batch)
        self._note_calls(calls)

    def _note_calls(self, calls: int) -> None:
        """Tell the ledger of calls that asked for no allowance: another job may have one."""
        if self.ledger is not None and not self.metered and calls > self._noted:
            self.ledger.note(calls - self._noted)
            self._noted = calls

    def go_on(self, calls: int | None) -> bool:
        """Begin the next phase, after the present one was settled; return whether there is one.

        Args:
            calls: how many may still be made; None: any number.
        """
        end = self.frontier.end
        if end is None or not self.frontier.complete or self.planning or self.stopped:
            return False
        if self.reading is not None and (missing := self.reading.missing):
            self._put_off(missing)
            return False
        reading = self._end_reading()
        if reading is not None:
            if not reading.changed or self._rounds == ROUNDS or reading.abandoned:
                return False
            self._rounds += 1
            if not self._look_again(frozenset(reading.emptied)):
                return True
        return self._read_again(max(1, end.last), calls)

    def _put_off(self, missing: list[int]) -> None:
        """Leave the rest of a check to a later run, as pages are that could not be read the first time."""
        shown = ", ".join(f"{page:,}" for page in missing[:5]) + (f" and {len(missing) - 5:,} more" * bool(missing[5:]))
        why = self.failures.get(missing[0], "")
        self.stop = Stop(
            exit=Exit.OPEN_PAGES,
            message=f"all pages are here, but could not be read a second time: page{'s' if missing[1:] else ''} {shown}"
            + (f"; {why}" if why else ""),
            hint="run again: what is kept is not fetched again, but for the second reading",
        )

    def _end_reading(self) -> SecondReading | None:
        """Note what the reading in progress has shown, whole or not; return it."""
        reading, self.reading = self.reading, None
        if reading is not None:
            self._mended += reading.mended
            self._not_reread += reading.unread
            self._again = ReadAgain(
                pages=reading.checked,
                changed=reading.changed,
                unread=self._not_reread,
                mended=self._mended,
                rounds=self._rounds,
                seed=self._again.seed,
                share_below=share_below(reading.checked, reading.last),
            )
        return reading

    def _read_again(self, last: int, calls: int | None) -> bool:
        wanted = wanted_again(self.dataset.recheck, last)
        # Page 1 and the last one come first; of more calls than these, one is for the page after the last.
        sample = wanted if calls is None else min(wanted, calls if calls <= OUTER else calls - 1)
        if sample <= 0:
            return False
        earlier, self._check = self._check_left(), None
        seed = secrets.randbits(32) if earlier is None else earlier.seed
        self._again = ReadAgain(seed=seed, rounds=self._rounds, mended=self._mended)
        end, rest = self.frontier.end, None if calls is None else calls - sample
        edge = end is not None and end.how == EMPTY and end.last > 0 and rest != 0
        most = None if rest is None else rest - edge
        self.reading = SecondReading(last, sample, seed, edge=edge, most=most, earlier=earlier)
        return True

    def _check_left(self) -> Check | None:
        """Return the check that this run can go on with, if any; pages that it fetched before are a reason not to."""
        if self.reading is not None:
            return self.reading.check
        return None if self.counts.pages else self._check

    def _look_again(self, emptied: frozenset[int]) -> bool:
        """Have the frontier find the end once more, after pages have changed; return whether it is known already."""
        before = self.frontier
        if not before.paged and before.done and not emptied:
            return True
        self.frontier = self._new_frontier()
        self.frontier.echoes, self.frontier.page_size = before.echoes, before.page_size
        if before.paged:
            self._restore((), set(before.holes), emptied)
            self.frontier.expect(before.done)
        return self.frontier.complete

    def _batch(self) -> Batch:
        pending, self._pending = self._pending, []
        unread, self._unread = self._unread, []
        end = self.frontier.end
        return Batch(
            pages=pending,
            unread=unread,
            notes=self._notes(),
            page_size=self._layout_size,
            certain=self.frontier.sealable,
            last=None if end is None else end.last,
            again=self.reading is not None or self._rounds > 0,
            seal=self.reading is None and self._rounds == 0,
        )

    # -- the end of the run -------------------------------------------------------------------------------------

    def last_batch(self) -> Callable[[], None]:
        """Hand over everything pending; return the work that ends the run for this dataset."""
        return partial(self._conclude, self._batch())

    def _conclude(self, batch: Batch) -> None:
        """Do what the end of the run asks for: seal, judge, publish, or save what is needed to continue."""
        end, keeper = self.frontier.end, self.keeper
        held = [self._given_up] if self._given_up else []
        if end is None:
            keeper.commit(batch)
        else:
            keeper.settle(batch, to_builtins(end))
            if self.frontier.complete and self.stop is None and not self.planning:
                self._end_reading()
                keeper.judge(self._evidence(end), self._about())
                held = self._weigh()
        keeper.close(self._notes(), held)
        self._note_calls(self.counts.calls)

    def _weigh(self) -> list[str]:
        """Say why a judged snapshot is held back; nothing if it is published."""
        verdict = self.keeper.certificate
        if verdict is None or self.published:
            return []
        strict = "`strict` asks for proven; " if verdict.verdict == "likely" else ""
        self.stop = Stop(
            exit=Exit.NOT_PROVEN,
            message=strict + "; ".join(verdict.reasons),
            hint="the snapshot is kept, not published; --fresh reads everything once more",
        )
        return list(verdict.reasons)

    def _evidence(self, end: End) -> Evidence:
        totals = self.frontier.totals
        return Evidence(
            pages=end.last,
            rows=0,
            end=EndFacts(how=end.how, beyond=end.beyond),
            page_size=SizeFacts(
                asked=self.dataset.page_size or 0,
                effective=self._size.rows,
                stated=self._size.stated,
                short=self._size.short,
            ),
            read_again=self._again,
            total=None if totals is None else TotalFacts(lowest=totals[0], highest=totals[1], last=totals[2]),
            expect_rows=self.dataset.expect_rows,
            holes=tuple(self.frontier.holes),
        )

    def _about(self) -> dict[str, Any]:
        return {
            "read": self._read_between(),
            "scheme": self.snapshot.identity["address"].partition(":")[0],
            "calls": self.calls,
            "version": __version__,
        }

    def _notes(self) -> dict[str, Any]:
        """Return the notes on what the event loop changes."""
        check = self._check_left()
        return ({} if check is None else {"check": to_builtins(check)}) | {
            "calls": self.calls,
            "read": self._read_between(),
            "totals": self.frontier.totals,
            "holes": list(self.frontier.holes),
            "rows_on_page_1": self._size.rows,
            "size_on_page_1": self._size.stated,
            "short_pages": self._size.short,
            "echoes": self.frontier.echoes,
            "beyond": {str(page): how for page, how in self.frontier.beyond.items() if not how.startswith(FAILURE)},
            "charset": self.dataset.charset,
        }

    def _read_between(self) -> dict[str, str]:
        """Return when the first and the last answer of the snapshot came, in Beijing time."""
        if not self._answers:
            return self._read
        first, last = (
            at.astimezone(BEIJING).isoformat(timespec="seconds") for at in (self._answers[0], self._answers[-1])
        )
        return {"from": self._read.get("from", first), "until": last}


def _with_charset(dataset: Dataset, snapshot: Snapshot) -> Dataset:
    """Return the dataset with the charset that the snapshot's pages were read with."""
    noted = snapshot.notes.get("charset") or ""
    if noted and dataset.charset and noted != dataset.charset:
        raise UsageError(
            f"dataset {dataset.name!r} was read as {noted} so far, and now `charset` says {dataset.charset}",
            hint=f"put the old setting back, or begin a new snapshot: --dataset {dataset.name} --fresh",
        )
    return replace(dataset, charset=noted or dataset.charset)
