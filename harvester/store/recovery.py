"""After a stop: which files nothing points at, and which shards are not what was recorded.

Deciding is all that happens here; the snapshot does what follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harvester.errors import DamagedError
from harvester.shard import JOURNAL_FILE, SHARD_FILE, Layout, ShardEntry
from harvester.store.durable import TEMPORARY, Folder, repair_hint
from harvester.store.sealed import sealed_stat

_CAUSES_SHOWN: Final = 10


def leftovers(names: Iterable[str], layout: Layout | None, last: int | None, sealed: Iterable[int]) -> list[str]:
    """Return the files that may go: drafts, what is beyond the end, and either half of a seal cut short.

    Args:
        names: all files of the snapshot.
        layout: None until frozen; nothing but drafts can be left over then.
        last: the last page of the dataset, if that is known.
        sealed: the numbers of the shards that the checkpoint has.
    """
    present, finished = set(names), set(sealed)
    found = []
    for name in sorted(present):
        match = JOURNAL_FILE.fullmatch(name) or SHARD_FILE.fullmatch(name)
        if name.startswith(TEMPORARY):
            found.append(name)
        elif match and layout is not None:
            shard = int(match[1])
            journal = layout.journal_name(shard)
            beyond = last is not None and not layout.pages_of(shard, last)
            half = name == journal if shard in finished else name == layout.shard_name(shard) and journal in present
            if beyond or half:
                found.append(name)
    return found


def strangers(names: Iterable[str], layout: Layout, sealed: Iterable[int]) -> list[str]:
    """Return files named like shards or journals that are neither: the wrong compression, or of a shard long gone.

    Args:
        names: all files of the snapshot; ``leftovers`` may be among what is returned.
        layout: of the snapshot.
        sealed: the numbers of the shards that the checkpoint has.
    """
    ours = {layout.shard_name(shard) for shard in sealed}
    return [
        name
        for name in names
        if (match := SHARD_FILE.fullmatch(name) or JOURNAL_FILE.fullmatch(name))
        and name not in ours
        and name != layout.journal_name(int(match[1]))
    ]


def changed_shards(
    folder: Folder, layout: Layout, sealed: dict[int, ShardEntry], *, thorough: bool = False
) -> dict[int, str]:
    """Return in words what is wrong with sealed shards, by number.

    The new times of those that only look changed are noted in ``sealed``.

    Args:
        folder: the snapshot's.
        layout: of the snapshot.
        sealed: what was recorded.
        thorough: read every shard, not only those whose time of modification has changed.
    """
    faults: dict[int, str] = {}
    for number, entry in sealed.items():
        found = sealed_stat(folder, layout, entry, thorough=thorough)
        if isinstance(found, str):
            faults[number] = found
        else:
            sealed[number] = found
    return faults


def in_words(layout: Layout, faults: dict[int, str]) -> list[str]:
    """Put faults, given by number of shard, beside the names of the files; an empty text is none."""
    return [f"{layout.shard_name(shard)} {fault}" for shard, fault in faults.items() if fault]


def demand_none(path: Path, faults: Iterable[str]) -> None:
    """Refuse to go on with a snapshot that has faults.

    Raises:
        DamagedError: there is a fault; names the first of them.
    """
    causes = list(faults)
    if not causes:
        return
    shown = causes[:_CAUSES_SHOWN]
    if len(shown) < len(causes):
        shown.append(f"and {len(causes) - len(shown)} more")
    raise DamagedError(f"{path} does not hold what was written", causes=shown, hint=repair_hint(path))
