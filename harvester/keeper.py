"""Makes pages of one dataset durable, seals what is certain, and ends a snapshot: evidence, verdict, publication.

Everything here waits for the disk and runs in the writer's thread, one piece of work after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from harvester import __version__, certificate
from harvester.certificate import GUESSES, Certificate, Evidence
from harvester.lifecycle import OVER
from harvester.model import Dataset, Page
from harvester.recount import recounted
from harvester.shard import Compression, Layout, ShardEntry, resources
from harvester.store.folder import DatasetFolder
from harvester.store.keys import KeyCounter, row_key
from harvester.store.snapshot import Kept, Snapshot


class Batch(Struct, frozen=True, kw_only=True):
    """What the event loop hands over.

    ``pages`` and ``unread`` wait to be written. ``notes`` are saved with the checkpoint. Shards may be sealed up to
    page ``certain``; ``last`` is the last page where it is known. ``again`` says that pages may replace others, whose
    shards are sealed only when ``seal`` says so.
    """

    pages: list[tuple[int, Page]]
    unread: list[tuple[int, bytes, str]]
    notes: dict[str, Any]
    page_size: int
    certain: int
    last: int | None
    again: bool = False
    seal: bool = True


class Keeper:
    """The snapshot of one dataset, on the writer's side.

    Args:
        dataset: what is mirrored.
        folder: where, locked.
        snapshot: which is filled.
        layout: rows per shard and compression of a snapshot that has no layout yet.
    """

    def __init__(
        self, dataset: Dataset, folder: DatasetFolder, snapshot: Snapshot, layout: tuple[int, Compression]
    ) -> None:
        self.snapshot = snapshot
        self.certificate: Certificate | None = None
        self.published = False
        self._dataset = dataset
        self._folder = folder
        self._wanted_layout = layout
        self._open: dict[int, tuple[int, tuple[str, ...]]] = {}  # rows and repairs of durable pages not sealed yet
        self._touched: set[int] = set()
        self._before: KeyCounter | None = None  # keys of rows in pages that were replaced
        self._settled = GUESSES if dataset.charset else frozenset[str]()  # the job file says what was guessed before
        repairs = snapshot.notes.get("repairs", {})
        self._repairs = Counter({what: count for what, count in repairs.items() if what not in self._settled})  # sealed

    @property
    def rows(self) -> int:
        """Rows that are durable."""
        sealed = sum(entry.rows for entry in self.snapshot.sealed.values())
        return sealed + sum(rows for rows, _ in self._open.values())

    def recovered(self, page: Kept) -> None:
        """Take over a page that was found in a journal."""
        repairs = self.snapshot.notes.get("open_repairs", {}).get(str(page.page), ())
        self._open[page.page] = page.rows, tuple(what for what in repairs if what not in self._settled)

    def count_repairs(self, repairs: Mapping[str, int]) -> None:
        """Say in how many pages what was repaired: where pages came back as they were, they must not count twice."""
        self._repairs = Counter(repairs)

    def commit(self, batch: Batch) -> None:
        """Make pages durable and seal what is certain."""
        snapshot = self.snapshot
        if snapshot.last is not None and (batch.last is None or batch.last > snapshot.last):
            snapshot.forget_end()
        decided = batch.notes.get("charset") != snapshot.notes.get("charset")
        snapshot.notes = batch.notes | self._repaired()
        for page, body, why in batch.unread:
            snapshot.quarantine(page, body, why)
        if batch.pages:
            layout = snapshot.layout or self._freeze(batch.page_size)
            if decided:
                snapshot.save()  # pages that are read by it must not outlive it
            if batch.again:
                self._remember({layout.shard_of(number) for number, _ in batch.pages})
                snapshot.rewrite(batch.pages)
            else:
                snapshot.append(batch.pages)
            self._open.update((number, (page.rows, page.repairs)) for number, page in batch.pages)
            self._touched.update(layout.shard_of(number) for number, _ in batch.pages)
            if any(page.repairs for _, page in batch.pages):
                snapshot.notes |= self._repaired()
                snapshot.save()  # journals do not say it
        if batch.seal:
            self._seal(batch.certain, batch.last)

    def prepare(self, batch: Batch) -> bool:
        """Commit, and make durable what other processes rely on; return whether they may write shards now."""
        self.commit(batch)
        if self.snapshot.layout is None:
            return False
        self.snapshot.save()
        return True

    def hand_over(self, batch: Batch, shard: int) -> None:
        """Commit, and leave the journal of a shard to another process until that is recorded or adopted."""
        self.commit(batch)
        self.snapshot.hand_over(shard)

    def record(self, entry: ShardEntry, records: bytes) -> None:
        """Take over a shard that another process has sealed."""
        for page in range(entry.first, entry.last + 1):
            self._repairs.update(self._open.pop(page, (0, ()))[1])
        self.snapshot.notes |= self._repaired()
        self.snapshot.record(entry, records)

    def adopt(self, shard: int) -> None:
        """Take over what another process has left of a shard."""
        for kept in self.snapshot.adopt(shard):
            self._open.setdefault(kept.page, (kept.rows, ()))
        self._touched.add(shard)

    def settle(self, batch: Batch, end: dict[str, Any]) -> None:
        """Commit, and bring the snapshot into the form that an end asks for: every shard sealed."""
        self.commit(batch)
        snapshot, last = self.snapshot, end["last"]
        if snapshot.end != end:
            snapshot.set_end(end)
        self._open = {page: kept for page, kept in self._open.items() if page <= last}
        if snapshot.layout is not None and last:
            self._touched.update(number for number in snapshot.layout.shards(last) if number not in snapshot.sealed)
            self._seal(last, last)

    def judge(self, evidence: Evidence, about: dict[str, Any]) -> None:
        """Complete the evidence, weigh it, and publish what may be published.

        Args:
            evidence: of the walk; what the files say is added here.
            about: further facts for the certificate.
        """
        snapshot = self.snapshot
        entries = [snapshot.sealed[number] for number in sorted(snapshot.sealed)]
        evidence = recounted(snapshot, evidence, self._dataset.key, self._before)
        self.certificate = certificate.judge(replace(evidence, repairs=self._repairs_of(evidence.pages)))
        snapshot.finish(self._package(entries, self.certificate, about))
        good = {"proven"} if self._dataset.strict else {"proven", "likely"}
        if self.certificate.verdict in good:
            summary = {"verdict": self.certificate.verdict, "rows": self.rows, "identity": snapshot.identity}
            self._folder.publish(snapshot.path.name, summary)
            snapshot.close_open()
            self.published = True

    def close(self, notes: dict[str, Any], held: list[str]) -> None:
        """Save what is needed to continue, or why there is nothing to continue although nothing is published."""
        self.snapshot.notes = notes | self._repaired() | {OVER: held}
        if not self.published:
            self.snapshot.save()
        if self._before is not None:
            self._before.close()
        self.snapshot.close()

    def _remember(self, shards: set[int]) -> None:
        """Keep the keys of the rows in shards that are about to change, to tell afterwards which are gone."""
        key, snapshot = self._dataset.key, self.snapshot
        if not key:
            return
        if self._before is None:
            self._before = KeyCounter(snapshot.path)
        for entry in [snapshot.sealed[shard] for shard in sorted(shards & snapshot.sealed.keys())]:
            for _, lines in snapshot.lines(entry.first, entry.last):
                for line in lines.splitlines():
                    self._before.add(row_key(line, key))

    def _freeze(self, page_size: int) -> Layout:
        rows_per_shard, compression = self._wanted_layout
        layout = Layout(rows_per_shard, max(1, page_size), compression)
        self.snapshot.freeze(layout)
        return layout

    def _seal(self, certain: int, last: int | None) -> None:
        layout = self.snapshot.layout
        if layout is None:
            return
        for number in sorted(self._touched):
            pages = layout.pages_of(number, last)
            if not pages or number in self.snapshot.sealed:
                self._touched.discard(number)
            elif pages[-1] <= certain and self.snapshot.complete(number):
                for page in pages:
                    self._repairs.update(self._open.pop(page, (0, ()))[1])
                self.snapshot.notes |= self._repaired()  # sealing saves them
                self.snapshot.seal(number)
                self._touched.discard(number)

    def _repairs_of(self, pages: int) -> dict[str, int]:
        """Return how many pages had which repair; at most, for those of a page that was replaced count twice."""
        return {what: min(count, pages) for what, count in self._repairs.items()}

    def _repaired(self) -> dict[str, Any]:
        return {
            "repairs": dict(self._repairs),
            "open_repairs": {str(page): kept[1] for page, kept in self._open.items() if kept[1]},
        }

    def _package(self, entries: list[ShardEntry], verdict: Certificate, about: dict[str, Any]) -> dict[str, Any]:
        return {
            "$schema": "https://datapackage.org/profiles/2.0/datapackage.json",
            "name": self._dataset.name.lower(),
            "title": self._dataset.title or self._dataset.name,
            "created": self.snapshot.created,
            "resources": resources(self.snapshot.layout, entries) if self.snapshot.layout else [],
            "harvester": {
                "version": __version__,
                **self.snapshot.package_members(),
                "rows": verdict.evidence.rows,
                "pages": verdict.evidence.pages,
                "certificate": {**to_builtins(verdict), **about},
            },
        }
