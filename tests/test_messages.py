"""Messages between the processes of a run: whole again, however the stream cuts them."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.messages import Block, Failed, FromChild, Inbox, Left, Recall, Report, Sealed, ToChild, Told, encoded
from harvester.shard import Layout, ShardEntry

ENTRY = ShardEntry(number=3, first=16, last=20, rows=9, bytes=99, sha256="ab", file_bytes=99, mtime_ns=7)
TO_CHILD: list[ToChild] = [
    Block(
        number=1,
        dataset="企业",
        charset="utf-8",
        echoes=True,
        path="/m/企业/s",
        owner=b'{"pid":1}\n',
        layout=Layout(10, 2, "zstd"),
        shard=3,
        here=[17],
    ),
    Recall(2**40),
]
FROM_CHILD: list[FromChild] = [
    Report(
        number=1,
        pages=[Told(16, 2, bytes(range(16)), None, 2, 9), Told(18, 2, bytes(16), 18)],
        calls=5,
        refused=[("1141", "超限", 2)],
        returned=[19, 20],
    ),
    Sealed(1, ENTRY, bytes(24 * 5)),
    Left(1, "HTTP 502: bad gateway"),
    Failed(1, "cannot write", "free some space"),
]


@given(st.lists(st.integers(0, 500), max_size=9))
def test_cut_anywhere(cuts: list[int]) -> None:
    """What was sent comes out, in order, both ways."""
    for kind, messages in ((ToChild, TO_CHILD), (FromChild, FROM_CHILD)):
        stream = b"".join(map(encoded, messages))
        places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
        inbox: Inbox[ToChild | FromChild] = Inbox(kind)
        assert [message for first, last in pairwise(places) for message in inbox.feed(stream[first:last])] == messages


def test_a_page_is_told_in_few_bytes() -> None:
    """Thousands are told a second: no names of members are sent."""
    report = Report(number=1, pages=[Told(4_000_000, 20, bytes(16), 4_000_000, 20, 80_000_000)] * 100, calls=100,
                    refused=[], returned=[])  # fmt: skip
    assert len(encoded(report)) < 100 * 40


def test_what_is_no_message_is_refused() -> None:
    """A process that speaks otherwise is an error, not a guess."""
    inbox: Inbox[FromChild] = Inbox(FromChild)
    with pytest.raises(msgspec.ValidationError):
        list(inbox.feed(encoded(Recall(1))))
