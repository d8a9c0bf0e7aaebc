"""Counting doubled rows: exact, in bounded memory, and without a trace on disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import LocalError
from harvester.store.keys import Counted, KeyCounter, row_key

KEY = ("id",)


def descriptors() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


def digest(number: int) -> bytes:
    """Return the digest of a number."""
    return sha256(b"%d" % number).digest()[:16]


@pytest.mark.parametrize("memory", [1, 500, 4096, 64 * 2**20])
def test_counts_are_exact_whatever_the_memory(tmp_path: Path, memory: int) -> None:
    """Spilled or not, in one pass over a part or in many."""
    random = Random(7)  # noqa: S311 - reproducible
    numbers = [random.randrange(1500) for _ in range(2000)]
    with KeyCounter(tmp_path, memory) as counter:
        for number in numbers:
            counter.add(digest(number))
        counter.add(None)
        counts = Counter(numbers)
        wanted = Counted(2000, len(counts), sum(count > 1 for count in counts.values()), 1)
        assert counter.result() == wanted
        assert counter.result().surplus == 2000 - len(counts)
        counter.add(digest(-1))
        assert counter.result() == wanted._replace(total=2001, distinct=len(counts) + 1)


@given(st.lists(st.binary(min_size=1, max_size=1), max_size=60))
def test_any_digests(tmp_path_factory: pytest.TempPathFactory, firsts: list[bytes]) -> None:
    """Digests that differ in one byte alone, at either end, with memory for one."""
    digests = [first + bytes(14) + end for first in firsts for end in (b"a", first)]
    counts = Counter(digests)
    with KeyCounter(tmp_path_factory.getbasetemp(), 32) as counter:
        for one in digests:
            counter.add(one)
        assert counter.result() == (len(digests), len(counts), sum(n > 1 for n in counts.values()), 0)


def test_all_the_same_is_no_burden(tmp_path: Path) -> None:
    """A column that is a constant: one digest, however often."""
    with KeyCounter(tmp_path, 4096) as counter:
        for _ in range(5000):
            counter.add(digest(1))
        assert counter.result() == Counted(5000, 1, 1, 0)


def test_nothing_is_left_on_disk(tmp_path: Path) -> None:
    """The file has no name while it is used, and two counters do not meet; a leftover of the name is no obstacle."""
    (tmp_path / ".tmp-scratch").write_bytes(b"x" * 99)
    before = descriptors()
    with KeyCounter(tmp_path, 64) as one, KeyCounter(tmp_path, 64) as two:
        for number in range(100):
            one.add(digest(number))
            two.add(digest(number % 10))
        assert list(tmp_path.iterdir()) == []
        assert descriptors() <= before + 2
        assert (one.result().distinct, two.result().distinct) == (100, 10)
        one.close()
    assert descriptors() == before


def test_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, with the folder's name."""

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = descriptors()
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(LocalError, match="No space left"), KeyCounter(tmp_path, 64) as counter:  # noqa: PT012 - as a caller has it
        for number in range(100):
            counter.add(digest(number))
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Half a million digests, 8 MB of them, with 2 MB to count in: a process of its own, measured by the system."""
    script = """
import resource, sys
from pathlib import Path
from random import Random
from harvester.store.keys import KeyCounter
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
random, counter = Random(1), KeyCounter(Path(sys.argv[1]), 2 * 2**20)
before = peak()
with counter:
    for _ in range(500_000):
        counter.add(random.randbytes(16))
    assert counter.result().distinct == 500_000
print(peak() - before)
"""
    found = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, check=True, text=True)  # noqa: S603 - our own
    assert int(found.stdout) < 4 * 2**20


def test_key_is_the_text_of_the_columns() -> None:
    """As sent: digits, escapes and the order of columns count, the order of members does not."""
    row = b'{"id":1.10,"name":"\\u4e2d","id2":{"a":[1,2]}}'
    assert row_key(row, ("id",)) == sha256(b"1.10").digest()[:16]
    assert row_key(row, ("name", "id")) == sha256(b'"\\u4e2d"\n1.10').digest()[:16]
    assert row_key(row, ("id2",)) == sha256(b'{"a":[1,2]}').digest()[:16]
    assert row_key(b'{"id":1.1}', KEY) != row_key(row, KEY) == row_key(b'{"x":0,"id":1.10}', KEY)
    assert row_key(b'{"id":"1"}', KEY) != row_key(b'{"id":1}', KEY)
    assert row_key(b'{"a":1,"b":23}', ("a", "b")) != row_key(b'{"a":12,"b":3}', ("a", "b"))
    assert row_key(b'{"id":1,"id":2}', KEY) == row_key(b'{"id":2}', KEY)
    assert row_key('{"编号":7}'.encode(), ("编号",)) == row_key(rb'{"\u7f16\u53f7":7}', ("编号",)) is not None


@pytest.mark.parametrize(
    "row",
    [
        b'{"name":1}',
        b"null",
        b"[1]",
        b'"id"',
        b"7",
        b"{}",
        b"",
        rb'["\ud800",{"id":1}]',
        rb'{"x":"\ud800"}',
        rb'"\ud800{\"id\":1}"',
        b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        rb'{"x":"\ud800","id":',
    ],
)
def test_row_without_the_column_has_no_key(row: bytes) -> None:
    """No object, no such member, or nothing that can be taken apart: counted apart, not as equal."""
    assert row_key(row, KEY) is None


@pytest.mark.parametrize("lone", [rb"\ud800", rb"\udc00x", rb"\ud83d\u0041"])
def test_lone_surrogates_do_not_hide_a_row(lone: bytes) -> None:
    """JSON allows them and rows hold them as sent, in values and in names."""
    wanted = row_key(b'{"id":1.10}', KEY)
    assert row_key(b'{"x":"%b","id":1.10,"y":{"z":[1,"}"]}}' % lone, KEY) == wanted
    assert row_key(b'{"%b":12345678901234567890,"id":1.10}' % lone, KEY) == wanted
    assert row_key(b'{"id":"%b","x":-1e999}' % lone, KEY) == sha256(b'"%b"' % lone).digest()[:16]
