"""What a simulation is to be, and the apps that are registered with it. The credentials are made up and public."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from math import isfinite
from pathlib import Path
from typing import Final, Literal, get_args

from harvester.errors import UsageError
from harvester.simulator.gate import PastEnd
from harvester.simulator.generated import MAX_ROWS

PLATFORMS: Final = ("wuhan", "sipop")

WUHAN_PASSID: Final = "sim-passid"
WUHAN_TOKEN: Final = "sim-wuhan-token"  # noqa: S105 - made up
SIPOP_APP_KEY: Final = "sim-app-key"
SIPOP_APP_SECRET: Final = "sim-sipop-secret"  # noqa: S105 - made up

# Registered as well, but subscribed to nothing.
WUHAN_UNSUBSCRIBED: Final = ("sim-passid-unsubscribed", "sim-wuhan-token-unsubscribed")
SIPOP_UNSUBSCRIBED: Final = ("sim-app-key-unsubscribed", "sim-sipop-secret-unsubscribed")

SipopDigest = Literal["any", "md5", "md5-16"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a simulation; every one has a default.

    Args:
        platforms: which to play, of ``wuhan`` and ``sipop``.
        rows: rows of each generated dataset.
        data: a file (see ``files.load``) to serve through either platform instead of the generated datasets.
        seed: other seeds give other rows.
        rate_limit: calls per second that each app is granted; None for no limit.
        latency: seconds between the arrival of a call, when it is judged, and the sending of its answer.
        host: a loopback address.
        port: 0 for any free one.
        past_end: what a page behind the last one holds.
        page_cap: the largest page that SIPOP gives; a larger ``pageSize`` is lowered to it without a word.
        sipop_digest: which lengths of the signature SIPOP takes.
        clock: the platforms' time in Unix seconds, also in the ``Date`` header.
        timer: seconds of a clock that never goes back, for rates and nonces.

    Raises:
        UsageError: a setting is out of its range.
    """

    platforms: tuple[str, ...] = PLATFORMS
    rows: int = 1_000
    data: Path | None = None
    seed: int = 0
    rate_limit: float | None = 300
    latency: float = 0.0
    host: str = "127.0.0.1"
    port: int = 0
    past_end: PastEnd = "empty"
    page_cap: int = 100
    sipop_digest: SipopDigest = "any"
    clock: Callable[[], float] = time.time
    timer: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        for fine, message in (
            (self.platforms and set(self.platforms) <= set(PLATFORMS), f"platforms are {' and '.join(PLATFORMS)}"),
            (0 <= self.rows <= MAX_ROWS, f"rows must lie between 0 and {MAX_ROWS}"),
            (self.rate_limit is None or (self.rate_limit > 0 and isfinite(self.rate_limit)), "a rate limit is above 0"),
            (self.latency >= 0 and isfinite(self.latency), "latency is 0 seconds or more"),
            (_is_loopback(self.host), f"the simulator listens on loopback only, and {self.host!r} is not"),
            (self.port in range(65536), "a port lies between 0 and 65535"),
            (self.past_end in get_args(PastEnd), f"past_end is one of {', '.join(get_args(PastEnd))}"),
            (self.page_cap >= 1, "page_cap is 1 or more"),
            (self.sipop_digest in get_args(SipopDigest), f"sipop_digest is one of {', '.join(get_args(SipopDigest))}"),
        ):
            if not fine:
                raise UsageError(f"cannot simulate that: {message}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
