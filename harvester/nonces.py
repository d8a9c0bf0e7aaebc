"""Nonces: a name for every call that no other call has ever had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

_AT_ONCE: Final = 256  # one question to the system for so many


def nonces() -> Iterator[str]:
    """Yield random UUIDs (RFC 9562, version 4) without end; not for two processes that were one when it began."""
    while True:
        digits = os.urandom(16 * _AT_ONCE).hex()
        for at in range(0, len(digits), 32):
            variant = "89ab"[int(digits[at + 16], 16) & 3]
            yield (
                f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-4{digits[at + 13 : at + 16]}"
                f"-{variant}{digits[at + 17 : at + 20]}-{digits[at + 20 : at + 32]}"
            )
