"""What a simulation is to be, and the apps that are registered with it. The credentials are made up and public."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from math import inf, isfinite
from pathlib import Path
from typing import Final, Literal, get_args

from harvester.errors import UsageError
from harvester.simulator.faults import Fault
from harvester.simulator.gate import make_quota
from harvester.simulator.generated import MAX_ROWS
from harvester.simulator.limits import KINDS, make_limit
from harvester.simulator.quirks import Quirks

PLATFORMS: Final = ("wuhan", "sipop")

WUHAN_PASSID: Final = "sim-passid"
WUHAN_TOKEN: Final = "sim-wuhan-token"  # noqa: S105 - made up
SIPOP_APP_KEY: Final = "sim-app-key"
SIPOP_APP_SECRET: Final = "sim-sipop-secret"  # noqa: S105 - made up

# Registered as well, but subscribed to nothing.
WUHAN_UNSUBSCRIBED: Final = ("sim-passid-unsubscribed", "sim-wuhan-token-unsubscribed")
SIPOP_UNSUBSCRIBED: Final = ("sim-app-key-unsubscribed", "sim-sipop-secret-unsubscribed")

SipopDigest = Literal["any", "md5", "md5-16"]
RefuseWith = Literal["code", "429"]
Changes = tuple[tuple[float, float], ...]
"""Pairs of seconds and the value from then on, in ascending order of the seconds."""

RETRY_AFTER: Final = re.compile(r"(date:)?[0-9]{1,9}", re.ASCII)
CHANGES_RULE: Final = "a schedule names ever later seconds, and values of 0 or more"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a simulation; every one has a default.

    Args:
        platforms: which to play, of ``wuhan`` and ``sipop``.
        rows: rows of each generated dataset.
        data: a file (see ``files.load``) to serve through either platform instead of the generated datasets.
        seed: other seeds give other rows, other jitter, other proxy errors and faults.
        rate_limit: calls per second that each app is granted; None for no limit.
        limit_kind: how these are counted, see ``limits.KINDS``.
        schedule: other rates, each with the seconds since the app's first call; 0 refuses everything.
        latency: seconds between the moment when a call is judged and the sending of its answer.
        latency_schedule: other latencies, each with the seconds since the first call of all.
        slow_pages: seconds of further latency per 1,000 of the page number: deep pages are slow.
        jitter: each call is judged up to so many seconds after it arrived; uniform, drawn in the order of arrival.
        bandwidth: bytes of bodies per second on the line that all connections share; 0 for no bound.
        quota: ``N/day`` or ``N/month``, calls of each interface or method that an app is granted; empty for no quota.
        refuse_with: calls over a limit get the platform's own ``code``, or HTTP ``429``.
        retry_after: the ``Retry-After`` of a 429: ``N`` for so many seconds, ``date:N`` for the date of that moment.
        proxy_errors: share of calls, from 0 to 1, that get an error page with a wrong date from a proxy instead.
        faults: what goes wrong with calls on the wire, how often and when, see ``faults.KINDS``.
        host: a loopback address.
        port: 0 for any free one.
        quirks: what is wrong with a dataset, by the name of its interface or method; under the empty name with all
            that have no entry of their own.
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
    limit_kind: str = "sliding"
    schedule: Changes = ()
    latency: float = 0.0
    latency_schedule: Changes = ()
    slow_pages: float = 0.0
    jitter: float = 0.0
    bandwidth: float = 0.0
    quota: str = ""
    refuse_with: RefuseWith = "code"
    retry_after: str = ""
    proxy_errors: float = 0.0
    faults: tuple[Fault, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    quirks: Mapping[str, Quirks] = field(default_factory=dict)
    sipop_digest: SipopDigest = "any"
    clock: Callable[[], float] = time.time
    timer: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        for fine, message in (
            (self.platforms and set(self.platforms) <= set(PLATFORMS), f"platforms are {' and '.join(PLATFORMS)}"),
            (0 <= self.rows <= MAX_ROWS, f"rows must lie between 0 and {MAX_ROWS}"),
            (self.rate_limit is None or (self.rate_limit > 0 and isfinite(self.rate_limit)), "a rate limit is above 0"),
            (_makes(partial(make_limit, limit=1.0), self.limit_kind), f"a kind of limit is one of {', '.join(KINDS)}"),
            (_are_changes(self.schedule), CHANGES_RULE),
            (self.rate_limit is not None or not self.schedule, "where there is no limit it cannot change"),
            (_is_amount(self.latency), "latency is 0 seconds or more"),
            (_are_changes(self.latency_schedule), CHANGES_RULE),
            (_is_amount(self.slow_pages), "slow_pages is 0 seconds or more"),
            (_is_amount(self.jitter), "jitter is 0 seconds or more"),
            (_is_amount(self.bandwidth), "bandwidth is 0 bytes per second or more"),
            (not self.quota or _makes(make_quota, self.quota), "a quota is written N/day or N/month"),
            (self.refuse_with in get_args(RefuseWith), f"refuse_with is one of {', '.join(get_args(RefuseWith))}"),
            (not self.retry_after or RETRY_AFTER.fullmatch(self.retry_after), "retry_after is written N or date:N"),
            (not self.retry_after or self.refuse_with == "429", "only a 429 carries a Retry-After"),
            (0 <= self.proxy_errors <= 1, "proxy_errors is a share from 0 to 1"),
            (_is_loopback(self.host), f"the simulator listens on loopback only, and {self.host!r} is not"),
            (self.port in range(65536), "a port lies between 0 and 65535"),
            (self.sipop_digest in get_args(SipopDigest), f"sipop_digest is one of {', '.join(get_args(SipopDigest))}"),
        ):
            if not fine:
                raise UsageError(f"cannot simulate that: {message}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_amount(value: float) -> bool:
    return 0 <= value < inf


def _are_changes(changes: Changes) -> bool:
    times = [at for at, _ in changes]
    return all(_is_amount(number) for change in changes for number in change) and times == sorted(set(times))


def _makes(make: Callable[[str], object], text: str) -> bool:
    try:
        make(text)
    except ValueError:
        return False
    return True


def parse_steps(text: str) -> tuple[float, Changes]:
    """Read a value that may change on schedule, as ``300,10:100,40:300``: 300, from second 10 on 100, from 40 on 300.

    Raises:
        ValueError: it is not written so.
    """
    first, *later = text.split(",")
    try:
        changes = [change.split(":") for change in later]
        return float(first), tuple((float(at), float(value)) for at, value in changes)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor one with changes, like 300,10:100,40:300") from None
