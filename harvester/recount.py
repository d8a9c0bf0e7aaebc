"""What the files of a snapshot say of its rows: how many, which pages and keys repeat. The same again for a check.

A certificate is a judgement on evidence that lies beside it, so it can be found again from the snapshot alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from harvester.certificate import (
    Certificate,
    EndFacts,
    Evidence,
    KeyFacts,
    TotalFacts,
    judge,
    recorded,
    share_below,
)
from harvester.errors import DamagedError
from harvester.store.contents import Contents
from harvester.store.durable import Folder, repair_hint
from harvester.store.keys import KeyCounter, row_key
from harvester.store.package import PACKAGE

PAGES_MEMORY: Final = 4 * 2**20
"""Bytes for counting equal pages, as many as there may be: a run takes no more memory at its end than on its way."""


def recounted(
    contents: Contents, evidence: Evidence, key: tuple[str, ...], before: KeyCounter | None = None
) -> Evidence:
    """Complete the evidence of a walk by what the sealed shards hold.

    Args:
        contents: the snapshot, every shard sealed.
        evidence: what else is known.
        key: the columns that tell rows apart, if any.
        before: keys of rows that stood in pages which were replaced since.

    Raises:
        LocalError: the shards cannot be read, or there is no room to count.
    """
    entries = contents.sealed.values()
    return replace(
        evidence,
        rows=sum(entry.rows for entry in entries),
        twins=sum(entry.twins for entry in entries),
        key=_keys(contents, evidence, key, before) if key else None,
        repeated_pages=0 if key else _repeated(contents),
    )


def _repeated(contents: Contents) -> int:
    with KeyCounter(contents.path, PAGES_MEMORY) as counter:
        for digest in contents.page_digests():
            counter.add(digest)
        return counter.result().surplus


def _keys(contents: Contents, evidence: Evidence, key: tuple[str, ...], before: KeyCounter | None) -> KeyFacts:
    with KeyCounter(contents.path) as counter:
        for _, lines in contents.lines():
            for line in lines.splitlines():
                digest = row_key(line, key)
                counter.add(digest)
                if before is not None and digest is not None:
                    before.add(digest)
        counted = counter.result()
    return KeyFacts(
        columns=key,
        distinct=counted.distinct,
        doubled=counted.doubled,
        without=counted.without,
        lost=None if evidence.total is None else max(0, evidence.total.last - counted.distinct - counted.without),
        gone=0 if before is None else before.result().distinct - counted.distinct,
    )


def rebuilt(contents: Contents, *, keys: bool = True) -> Certificate:
    """Judge a finished snapshot once more, by its files and the evidence recorded with them.

    Args:
        contents: the snapshot, with a data package.
        keys: whether rows are counted by their key again, which takes a while; else that count is believed.

    Raises:
        DamagedError: the package holds no certificate.
        LocalError: the shards cannot be read.
    """
    evidence = _of_the_manifest(contents, certified(contents).evidence)
    known = evidence.key
    found = recounted(contents, evidence, known.columns if known and keys else ())
    if known is not None and not keys:
        found = replace(found, key=known, repeated_pages=0)
    elif known is not None and found.key is not None:
        found = replace(found, key=replace(found.key, gone=known.gone))
    return judge(found)


def _of_the_manifest(contents: Contents, evidence: Evidence) -> Evidence:
    """Take from the manifest what stands in it as well: all but how the second reading went."""
    end, notes, again = contents.end or {}, contents.notes, evidence.read_again
    last, totals = end.get("last", 0), notes.get("totals")
    return replace(
        evidence,
        pages=last,
        end=EndFacts(how=end.get("how", ""), beyond=tuple(end.get("beyond", ()))),
        holes=tuple(notes.get("holes", ())),
        repairs={what: min(count, last) for what, count in notes.get("repairs", {}).items()},
        total=None if totals is None else TotalFacts(lowest=totals[0], highest=totals[1], last=totals[2]),
        read_again=replace(
            again, pages=min(again.pages, max(1, last)), share_below=share_below(again.pages, max(1, last))
        ),
    )


def certified(contents: Contents) -> Certificate:
    """Return the certificate that is recorded in a snapshot.

    Raises:
        DamagedError: there is none that can be read.
    """
    with Folder(contents.path) as folder:
        data = folder.read(PACKAGE) or b""
    try:
        return recorded(data)
    except msgspec.DecodeError as error:
        raise DamagedError(
            f"cannot read the certificate in {contents.path / PACKAGE}",
            causes=[str(error)],
            hint=repair_hint(contents.path),
        ) from error


def snapshot_fault(path: Path) -> str:
    """Say in words how a snapshot's certificate differs from what files and evidence give; empty if it does not.

    A snapshot that has not been judged yet has none.
    """
    if not (path / PACKAGE).is_file():
        return ""
    with Contents.open(path) as contents:
        said, found = certified(contents), rebuilt(contents, keys=False)
    if said == found:
        return ""
    if said.verdict != found.verdict:
        return f"the certificate says {said.verdict!r}, its evidence gives {found.verdict!r}"
    return "the certificate does not say what the files and its evidence give"
