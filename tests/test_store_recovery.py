"""What is left over after a stop, and how faults are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from harvester.errors import DamagedError
from harvester.shard import Layout
from harvester.store.recovery import demand_none, in_words, leftovers, strangers

LAYOUT = Layout(8, 2)


@pytest.mark.parametrize(
    ("names", "last", "sealed", "gone"),
    [
        (["part-00000.jsonl", "part-00000.pages"], None, [0], ["part-00000.pages"]),  # sealed, journal not deleted
        (["part-00000.jsonl", "part-00000.pages"], None, [], ["part-00000.jsonl"]),  # not in the checkpoint yet
        (["part-00000.jsonl"], None, [], []),  # nobody knows what it is: it stays, and verify names it
        (["part-00000.pages"], None, [], []),
        (["part-00001.pages", "part-00002.jsonl"], 5, [], ["part-00002.jsonl"]),  # beyond the end
        (["part-00000.pages"], 0, [], ["part-00000.pages"]),
        ([".tmp-part-00000.jsonl", ".tmp-scratch"], None, [], [".tmp-part-00000.jsonl", ".tmp-scratch"]),
        (["pages.idx", "checkpoint.json", "quarantine", "part-1.jsonl", "notes.txt"], 0, [], []),
        (["part-00000.jsonl.gz", "part-00000.pages"], None, [], []),  # not of this layout
    ],
)
def test_leftovers(names: list[str], last: int | None, sealed: list[int], gone: list[str]) -> None:
    """Either half of a seal cut short, what is beyond the end, and drafts; nothing else."""
    assert leftovers(names, LAYOUT, last, sealed) == gone


def test_without_a_layout_only_drafts_go() -> None:
    """A journal is evidence then, not a leftover."""
    assert leftovers(["part-00000.pages", ".tmp-x"], None, 0, []) == [".tmp-x"]


@pytest.mark.parametrize(
    ("names", "sealed", "strange"),
    [
        (["part-00000.jsonl", "part-00001.pages", "pages.idx", "checkpoint.json", "part-mine", "notes"], [0], []),
        (["part-00000.jsonl"], [], ["part-00000.jsonl"]),
        (["part-00000.jsonl", "part-00000.jsonl.gz"], [0], ["part-00000.jsonl.gz"]),
        (["part-000001.pages", "part-000001.jsonl"], [1], ["part-000001.pages", "part-000001.jsonl"]),
    ],
)
def test_strangers(names: list[str], sealed: list[int], strange: list[str]) -> None:
    """What is named like a shard or a journal, and is neither; what is not named so is not ours."""
    assert strangers(names, LAYOUT, sealed) == strange


def test_faults_in_words() -> None:
    """Each beside its file, ten of them and how many more; none is no error."""
    demand_none(Path("m/d/s"), in_words(LAYOUT, {0: "", 3: ""}))
    with pytest.raises(DamagedError) as caught:
        demand_none(Path("m/d/s"), in_words(LAYOUT, dict.fromkeys(range(13), "is missing")))
    assert caught.value.causes[0] == "part-00000.jsonl is missing"
    assert caught.value.causes[10:] == ("and 3 more",)
    assert "--repair" in caught.value.hint
