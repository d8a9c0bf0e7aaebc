"""Nonces: well formed, and none twice."""

from __future__ import annotations

import uuid
from itertools import islice

from harvester.nonces import nonces


def test_random_uuids() -> None:
    """Each is a UUID of version 4 as the standard writes it, also where one question to the system ends."""
    found = list(islice(nonces(), 1000))
    assert len(set(found)) == 1000
    for text in found:
        value = uuid.UUID(text)
        assert (str(value), value.version, value.variant) == (text, 4, uuid.RFC_4122)
    assert {text[19] for text in found} == set("89ab")


def test_two_makers_have_nothing_in_common() -> None:
    """Every run begins with chance of its own."""
    assert not set(islice(nonces(), 300)) & set(islice(nonces(), 300))
