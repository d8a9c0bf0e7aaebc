"""One dataset in one run: its pages on the way from the frontier to the snapshot, and its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from harvester import __version__, certificate
from harvester.attempt import Subject
from harvester.certificate import Certificate, Evidence
from harvester.errors import Exit
from harvester.events import Counts
from harvester.frontier import End, Frontier
from harvester.health import Health
from harvester.lifecycle import OVER
from harvester.model import About, Dataset, Page
from harvester.shard import Compression, Layout, ShardEntry, page_digest, resources
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Kept, Snapshot

BEIJING: Final = timezone(timedelta(hours=8))


class Stop(Struct, frozen=True, kw_only=True):
    """Why a dataset gets no more calls in this run: the exit code, the words for it, what a refusal is about."""

    exit: Exit
    message: str
    hint: str = ""
    about: About = ""


class DatasetRun:
    """The state of one dataset while it is mirrored.

    The event loop brings pages in (``accept``) and hands them over (``batch``); the writer's thread makes them durable.

    Args:
        dataset: what is mirrored.
        folder: where, locked.
        snapshot: which is filled.
        health: of its host.
        layout: rows per shard and compression of a snapshot that has no layout yet.
    """

    def __init__(
        self,
        dataset: Dataset,
        folder: DatasetFolder,
        snapshot: Snapshot,
        health: Health,
        layout: tuple[int, Compression],
    ) -> None:
        self.dataset = dataset
        self.folder = folder
        self.snapshot = snapshot
        self.subject = Subject(dataset, health)
        self.frontier = Frontier(paged=dataset.paging == "page")
        self.counts = Counts()
        self.stop: Stop | None = None
        self.certificate: Certificate | None = None
        self.published = False
        self.concluded = False
        self._wanted_layout = layout
        self._page_size = 0
        self.unreadable = False
        self.failures: dict[int, str] = {}  # why pages stayed open
        self._pending: list[tuple[int, Page]] = []
        self._unread: list[tuple[int, bytes, str]] = []
        self._open: dict[int, tuple[int, tuple[str, ...]]] = {}  # rows and repairs of durable pages not sealed yet
        self._touched: set[int] = set()
        self._repairs: Counter[str] = Counter()  # of sealed pages
        self._earlier_calls = 0
        self._read: dict[str, str] = {}  # from when and until when pages were read, before this run
        self._answers: list[datetime] = []  # the first and the last in this run
        self._take_over(snapshot.recover())

    @property
    def health(self) -> Health:
        """Of the host that serves the dataset."""
        return self.subject.health

    @property
    def stopped(self) -> bool:
        """Whether no more calls are wanted."""
        return self.stop is not None

    @property
    def rows(self) -> int:
        """Rows that are durable."""
        sealed = sum(entry.rows for entry in self.snapshot.sealed.values())
        return sealed + sum(rows for rows, _ in self._open.values())

    def _take_over(self, kept: Iterable[Kept]) -> None:
        """Continue where the snapshot was left."""
        snapshot, frontier = self.snapshot, self.frontier
        notes = snapshot.notes
        self._earlier_calls = notes.get("calls", 0)
        self._repairs.update(notes.get("repairs", {}))
        self._read = notes.get("read", {})
        if totals := notes.get("totals"):
            frontier.totals = tuple(totals)
        if snapshot.layout is not None:
            self._page_size = frontier.page_size = notes.get("rows_on_page_1", snapshot.layout.page_size)
        digests = snapshot.edge_digests()
        for entry in snapshot.sealed.values():
            frontier.restore(entry.first, entry.last)
        holes = set(notes.get("holes", []))
        for page in kept:
            frontier.restore(page.page, page.page)
            digests[page.page] = page.digest
            self._open[page.page] = page.rows, tuple(notes.get("open_repairs", {}).get(str(page.page), ()))
            if not page.rows:
                holes.add(page.page)
        frontier.restore_digests(digests)
        frontier.holes = sorted(holes)
        if snapshot.end is not None:
            frontier.restore_end(End(snapshot.end["last"], snapshot.end["how"], tuple(snapshot.end["beyond"])))
        self.counts.kept = frontier.done

    # -- in the event loop --------------------------------------------------------------------------------------

    def accept(self, number: int, page: Page, at: datetime) -> bool:
        """Take in an answer; return whether the page is kept and a commit is due."""
        kept = self.frontier.arrived(number, page.rows, page_digest(page.lines), page.total)
        self._answers[1:] = [at]
        if number == 1 and page.rows:
            self._page_size = max(page.rows, page.size or 0)
        if kept:
            self._pending.append((number, page))
            self.counts.pages += 1
            self.counts.rows += page.rows
        return kept

    def set_aside(self, page: int, body: bytes, why: str) -> None:
        """Keep an answer that nobody could read, for somebody to look at."""
        self.unreadable = True
        self._unread.append((page, body, why))

    def batch(self) -> Callable[[], None]:
        """Hand over everything pending; return the work that makes it durable."""
        pending, self._pending = self._pending, []
        unread, self._unread = self._unread, []
        return partial(self._commit, pending, unread, self._walk())

    def last_batch(self) -> Callable[[], None]:
        """Hand over everything pending; return the work that ends the run for this dataset."""
        return partial(self._conclude, self.batch())

    # -- in the writer's thread ---------------------------------------------------------------------------------

    def _commit(
        self, pending: list[tuple[int, Page]], unread: list[tuple[int, bytes, str]], walk: dict[str, Any]
    ) -> None:
        """Make pages durable and seal what is certain."""
        snapshot = self.snapshot
        snapshot.notes = walk | self._repaired()
        for page, body, why in unread:
            snapshot.quarantine(page, body, why)
        if pending:
            layout = snapshot.layout or self._freeze()
            snapshot.append(pending)
            self._open.update((number, (page.rows, page.repairs)) for number, page in pending)
            self._touched.update(layout.shard_of(number) for number, _ in pending)
            if any(page.repairs for _, page in pending):
                snapshot.notes |= self._repaired()
                snapshot.save()  # journals do not say it
        self._seal()

    def _freeze(self) -> Layout:
        rows_per_shard, compression = self._wanted_layout
        layout = Layout(rows_per_shard, max(1, self._page_size), compression)
        self.snapshot.freeze(layout)
        return layout

    def _seal(self) -> None:
        layout, end = self.snapshot.layout, self.frontier.end
        if layout is None:
            return
        for number in sorted(self._touched):
            pages = layout.pages_of(number, end.last if end else None)
            if not pages or number in self.snapshot.sealed:
                self._touched.discard(number)
            elif self.snapshot.complete(number) and self.frontier.sealable(pages[0], pages[-1]):
                for page in pages:
                    self._repairs.update(self._open.pop(page, (0, ()))[1])
                self.snapshot.notes |= self._repaired()  # sealing saves them
                self.snapshot.seal(number)
                self._touched.discard(number)

    def _conclude(self, last_commit: Callable[[], None]) -> None:
        """Do what the end of the run asks for: seal, judge, publish, or save what is needed to continue."""
        last_commit()
        end, snapshot = self.frontier.end, self.snapshot
        if end is not None:
            if snapshot.end is None:
                snapshot.set_end(asdict(end))
            self._open = {page: kept for page, kept in self._open.items() if page <= end.last}
            if snapshot.layout is not None and end.last:
                self._touched.update(snapshot.layout.shards(end.last))
                self._seal()
        if end is not None and self.frontier.complete and self.stop is None:
            self._judge(end)
        held = [] if self.certificate is None or self.published else list(self.certificate.reasons)
        snapshot.notes = self._walk() | self._repaired() | {OVER: held}
        if not self.published:
            snapshot.save()
        snapshot.close()

    def _judge(self, end: End) -> None:
        """Weigh the evidence; publish what is at least likely, keep what is not."""
        entries = [self.snapshot.sealed[number] for number in sorted(self.snapshot.sealed)]
        self.certificate = certificate.judge(
            Evidence(
                pages=end.last,
                rows=sum(entry.rows for entry in entries),
                end=end.how,
                beyond=end.beyond,
                totals=self.frontier.totals,
                holes=tuple(self.frontier.holes),
                repairs=dict(self._repairs),
            )
        )
        self.snapshot.finish(self._package(entries, self.certificate))
        if self.certificate.verdict == "not proven":
            self.stop = Stop(
                exit=Exit.NOT_PROVEN,
                message="; ".join(self.certificate.reasons),
                hint="the snapshot is kept, not published; --fresh reads everything once more",
            )
            return
        summary = {"verdict": self.certificate.verdict, "rows": self.rows, "identity": self.snapshot.identity}
        self.folder.publish(self.snapshot.path.name, summary)
        self.snapshot.close_open()
        self.published = True

    def _walk(self) -> dict[str, Any]:
        """Return the notes on what the event loop changes."""
        return {
            "calls": self.calls,
            "read": self._read_between(),
            "totals": self.frontier.totals,
            "holes": list(self.frontier.holes),
            "rows_on_page_1": self.frontier.page_size,
        }

    def _read_between(self) -> dict[str, str]:
        """Return when the first and the last answer of the snapshot came, in Beijing time."""
        if not self._answers:
            return self._read
        first, last = (
            at.astimezone(BEIJING).isoformat(timespec="seconds") for at in (self._answers[0], self._answers[-1])
        )
        return {"from": self._read.get("from", first), "until": last}

    def _repaired(self) -> dict[str, Any]:
        """Return the notes on what only the writer's thread changes."""
        return {
            "repairs": dict(self._repairs),
            "open_repairs": {str(page): kept[1] for page, kept in self._open.items() if kept[1]},
        }

    @property
    def calls(self) -> int:
        """Calls for this snapshot, in this run and those before it."""
        return self._earlier_calls + self.counts.calls

    def _package(self, entries: list[ShardEntry], verdict: Certificate) -> dict[str, Any]:
        return {
            "$schema": "https://datapackage.org/profiles/2.0/datapackage.json",
            "name": self.dataset.name.lower(),
            "title": self.dataset.title or self.dataset.name,
            "created": self.snapshot.created,
            "resources": resources(self.snapshot.layout, entries) if self.snapshot.layout else [],
            "harvester": {
                "version": __version__,
                "identity": self.snapshot.identity,
                "rows": sum(entry.rows for entry in entries),
                "pages": verdict.evidence["pages"],
                "certificate": {
                    **asdict(verdict),
                    "read": self._read_between(),
                    "scheme": self.snapshot.identity["address"].partition(":")[0],
                    "calls": self.calls,
                },
            },
        }
