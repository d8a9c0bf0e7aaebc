"""``datapackage.json`` as a record: what is needed of a finished snapshot to check it, or to open it again.

The package is the caller's; it holds the members that ``members`` gives, and the resources that ``shard`` gives.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from harvester.shard import Compression, Layout, ShardEntry
from harvester.store.checkpoint import Checkpoint
from harvester.store.durable import Folder, LostError, fresh_hint

PACKAGE: Final = "datapackage.json"

_COMPRESSIONS: Final[dict[str, Compression]] = {"": "none", "gz": "gzip", "zst": "zstd"}


class _Shard(msgspec.Struct):
    number: int
    pages: tuple[int, int]
    rows: int
    bytes: int | None = None
    sha256: str = ""
    twins: int = 0


class _Resource(msgspec.Struct):
    path: str
    bytes: int
    hash: str
    harvester: _Shard
    compression: str = ""


class _End(msgspec.Struct):
    last: int


class _Snapshot(msgspec.Struct):
    identity: dict[str, Any] = {}
    layout: Layout | None = None
    end: dict[str, Any] | None = None
    notes: dict[str, Any] = {}


class _Package(msgspec.Struct):
    resources: list[_Resource]
    created: str = ""
    harvester: _Snapshot = msgspec.field(default_factory=_Snapshot)


def members(content: Checkpoint) -> dict[str, Any]:
    """Return what a package has to hold under ``harvester`` so that ``read_package`` gives ``content`` back.

    ``created`` stands at the top of the package, the shards are its resources.
    """
    return {
        "identity": content.identity,
        "layout": msgspec.to_builtins(content.layout),
        "end": content.end,
        "notes": content.notes,
    }


def read_package(folder: Folder) -> Checkpoint:
    """Read from the data package what a checkpoint would say; its paths are compared, never followed.

    Times of modification are not in it and come as 0. In a package that does not say the end, as none did at first,
    ``end`` is None and the layout is one that gives the same shards.

    Raises:
        LostError: it is missing, cannot be read, or contradicts itself.
    """
    try:
        package = msgspec.json.decode(folder.read(PACKAGE) or b"", type=_Package)
        ours = package.harvester
        layout = ours.layout or _layout(package.resources)
        last = None if ours.end is None else msgspec.convert(ours.end, _End).last
    except (msgspec.DecodeError, ValueError, KeyError) as error:
        raise _damaged(folder, f"{PACKAGE} is missing or damaged", str(error)) from error
    sealed = []
    if layout is not None:
        sealed = [_entry(folder, layout, number, found) for number, found in enumerate(package.resources)]
    if last is not None and not _tile(layout, sealed, last):
        raise _damaged(folder, f"{PACKAGE} is damaged", f"its resources do not hold pages 1 to {last} as laid out")
    return Checkpoint(
        identity=ours.identity, created=package.created, layout=layout, end=ours.end, notes=ours.notes, sealed=sealed
    )


def _tile(layout: Layout | None, sealed: list[ShardEntry], last: int) -> bool:
    """Tell whether shards are those of a dataset with so many pages, each with the pages of its number."""
    if layout is None:
        return not last
    pages = [range(entry.first, entry.last + 1) for entry in sealed]
    return pages == [layout.pages_of(number, last) for number in layout.shards(last)]


def _layout(resources: list[_Resource]) -> Layout | None:
    if not resources:
        return None
    first, last = resources[0].harvester.pages
    return Layout(last + 1 - first, 1, _COMPRESSIONS[resources[0].compression])


def _entry(folder: Folder, layout: Layout, number: int, resource: _Resource) -> ShardEntry:
    ours = resource.harvester
    if ours.number != number or resource.path != layout.shard_name(number):
        raise _damaged(folder, f"{PACKAGE} is damaged", f"resource {number} names {resource.path!r}")
    return ShardEntry(
        number=number,
        first=ours.pages[0],
        last=ours.pages[1],
        rows=ours.rows,
        bytes=resource.bytes if ours.bytes is None else ours.bytes,
        sha256=resource.hash.removeprefix("sha256:"),
        file_bytes=resource.bytes,
        mtime_ns=0,
        content_sha256=ours.sha256,
        twins=ours.twins,
    )


def _damaged(folder: Folder, what: str, reason: str) -> LostError:
    return LostError(f"cannot read {folder.path}: {what}", causes=[reason], hint=fresh_hint(folder.path))
