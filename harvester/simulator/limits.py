"""Ways in which a platform counts an app's calls. Pure: the time of a call is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Final, Protocol

KINDS: Final = ("sliding", "calendar", "first-hit", "weighted", "token:DEPTH", "leaky:DEPTH", "nginx", "nginx:BURST")


class Limit(Protocol):
    """Decides about one call after the other; whoever implements it counts in its own way."""

    def admit(self, now: float) -> bool:
        """Say whether a call that arrives at ``now`` (seconds, never decreasing) is within the limit."""

    def change(self, limit: float) -> None:
        """Go on with another limit in calls per second, above zero; what was counted so far still counts."""


def make_limit(kind: str, limit: float, phase: float = 0.0) -> Limit:
    """Return a fresh limit of a kind that goes by a name.

    Args:
        kind: one of ``KINDS``, with whole numbers for DEPTH (from 1) and BURST.
        limit: calls per second, above zero.
        phase: what to add to a call's time to get Unix seconds; matters to ``calendar`` alone.

    Raises:
        ValueError: there is no such kind.
    """
    name, colon, number = kind.partition(":")
    if not colon and name in PLAIN:
        return PLAIN[name](limit, phase)
    if number.isascii() and number.isdecimal():
        size = int(number)
        if name in {"token", "leaky"} and size:
            return Bucket(limit, size)
        if name == "nginx":
            return NginxBucket(limit, size)
    raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")


def _window(limit: float, window: float = 1.0) -> tuple[int, float]:
    """Return how many calls fit a window and its length in seconds.

    Where ``limit * window`` is no whole number the window is scaled with the rounded-down count (0.5 calls per second
    are one call in two seconds), so the rate is kept exactly.
    """
    capacity = max(1, int(limit * window))
    return capacity, capacity / limit


class SlidingLog:
    """At most ``limit * window`` admitted calls in any ``window`` seconds; refused calls do not count.

    A call leaves the window exactly ``window`` seconds after it was admitted.

    Args:
        limit: calls per second, above zero.
        window: length of the window in seconds, scaled where ``limit * window`` is no whole number.
    """

    def __init__(self, limit: float, window: float = 1.0) -> None:
        self._length = window
        self._admitted: deque[float] = deque()
        self.change(limit)

    def change(self, limit: float) -> None:
        """Count with another capacity; of what was admitted the latest calls fill it."""
        self._capacity, self._span = _window(limit, self._length)
        self._admitted = deque(self._admitted, maxlen=self._capacity)

    def admit(self, now: float) -> bool:
        """Admit the call unless the window that ends at ``now`` is full."""
        admitted = self._admitted
        if len(admitted) == self._capacity and now - admitted[0] < self._span:
            return False
        admitted.append(now)  # a full deque drops its oldest entry, which has left the window
        return True


class CalendarWindow:
    """At most ``limit`` calls in every second of the calendar; twice that around the turn of a second.

    Envoy's rate limit service and Kong keep such counts, one key per second. Refused calls count without effect, as
    the second is full anyway.

    Args:
        limit: calls per second, above zero.
        phase: what to add to a call's time to get Unix seconds.
    """

    def __init__(self, limit: float, phase: float = 0.0) -> None:
        self._phase = phase
        self._second = -inf
        self._count = 0
        self.change(limit)

    def change(self, limit: float) -> None:
        """Allow another number from now on, also in the second that has begun."""
        self._capacity, self._span = _window(limit)

    def admit(self, now: float) -> bool:
        """Admit the call unless its second is full."""
        second = (now + self._phase) // self._span
        if second != self._second:
            self._second, self._count = second, 0
        if self._count >= self._capacity:
            return False
        self._count += 1
        return True


class FirstHitWindow:
    """At most ``limit`` calls within a second from the first hit; the next hit after that starts another second.

    APISIX's limit-count works so, and counters in Redis that expire. Refused calls do not prolong the second.

    Args:
        limit: calls per second, above zero.
    """

    def __init__(self, limit: float) -> None:
        self._start = -inf
        self._count = 0
        self.change(limit)

    def change(self, limit: float) -> None:
        """Allow another number from now on, also in the window that is open."""
        self._capacity, self._span = _window(limit)

    def admit(self, now: float) -> bool:
        """Admit the call unless the open window is full."""
        if now - self._start >= self._span:
            self._start, self._count = now, 0
        if self._count >= self._capacity:
            return False
        self._count += 1
        return True


class WeightedWindow:
    """Refuses while the rate exceeds ``limit``: calls of this period and a share of the one before it.

    HAProxy's ``http_req_rate(1s)`` with ``deny if gt limit`` (freq_ctr.c): the earlier period counts in proportion to
    the milliseconds that the present one still has, rounded down. Every call counts, refused ones too, so who goes on
    hammering stays locked out. Periods follow one another from the first call; after two without any they start anew.

    Args:
        limit: calls per second, above zero.
    """

    def __init__(self, limit: float) -> None:
        self._start = -inf
        self._present = self._past = 0
        self.change(limit)

    def change(self, limit: float) -> None:
        """Compare with another limit; the periods go on."""
        self._capacity, span = _window(limit)
        self._period = round(span * 1000)

    def admit(self, now: float) -> bool:
        """Count the call, then admit it unless the rate is greater than the limit."""
        moment, period = int(now * 1000), self._period
        age = moment - self._start
        if age >= 2 * period:
            self._start, self._past, self._present = moment, 0, 0
        elif age >= period:
            self._start, self._past, self._present = self._start + period, self._present, 0
        self._present += 1
        left = self._start + period - moment
        return self._present + self._past * left // period <= self._capacity


class Bucket:
    """A token bucket of ``depth`` tokens, full at first; refused calls take none.

    A leaky bucket that overflows above ``depth`` decides the same: its level is what the tokens lack. AWS-style
    gateways and Envoy's local rate limit use one.

    Args:
        limit: tokens per second, above zero.
        depth: calls that may come at once, from 1.
    """

    def __init__(self, limit: float, depth: int) -> None:
        self._rate = limit
        self._depth = self._tokens = float(depth)
        self._last = -inf

    def change(self, limit: float) -> None:
        """Fill at another rate, the time since the last call included."""
        self._rate = limit

    def admit(self, now: float) -> bool:
        """Admit the call if a whole token is there for it."""
        tokens = min(self._depth, self._tokens + (now - self._last) * self._rate)
        fits = tokens >= 1.0
        self._tokens, self._last = tokens - fits, now
        return fits


class NginxBucket:
    """The bucket of nginx's ``limit_req`` with ``burst=N nodelay``, or without a burst (ngx_http_limit_req_module.c).

    Time is whole milliseconds, the excess whole thousandths of a call: without a burst 300 calls per second means one
    call every 4 ms. A refusal changes nothing.

    Args:
        limit: calls per second; as in nginx no finer than a thousandth.
        burst: calls that may come at once besides the first.
    """

    def __init__(self, limit: float, burst: int = 0) -> None:
        self._most = burst * 1000
        self._excess = -1000  # the first call finds no bucket and leaves one without excess
        self._last = 0
        self.change(limit)

    def change(self, limit: float) -> None:
        """Drain at another rate, the time since the last admitted call included."""
        self._rate = max(1, round(limit * 1000))

    def admit(self, now: float) -> bool:
        """Admit the call unless the excess it leaves is above the burst."""
        moment = int(now * 1000)
        excess = max(0, self._excess - self._rate * (moment - self._last) // 1000 + 1000)
        if excess > self._most:
            return False
        self._excess, self._last = excess, moment
        return True


PLAIN: Final[dict[str, Callable[[float, float], Limit]]] = {
    "sliding": lambda limit, _: SlidingLog(limit),
    "calendar": CalendarWindow,
    "first-hit": lambda limit, _: FirstHitWindow(limit),
    "weighted": lambda limit, _: WeightedWindow(limit),
    "nginx": lambda limit, _: NginxBucket(limit),
}


class Steps:
    """A value that changes at set times, counted in seconds from when it is first asked for.

    Args:
        first: the value at first.
        changes: pairs of seconds and the value from then on, in ascending order.
    """

    def __init__(self, first: float, changes: Iterable[tuple[float, float]]) -> None:
        self._value = first
        self._coming = deque(changes)
        self._began: float | None = None

    def at(self, now: float) -> float:
        """Return the value at ``now``, seconds that never decrease."""
        if self._began is None:
            self._began = now
        while self._coming and now - self._began >= self._coming[0][0]:
            self._value = self._coming.popleft()[1]
        return self._value


class ScheduledLimit:
    """A limit that is changed on schedule; a rate of 0 refuses everything, without counting it.

    Args:
        kind: makes the limit.
        limit: calls per second at first, above zero.
        changes: pairs of seconds since the first call and calls per second from then on.
    """

    def __init__(self, kind: Callable[[float], Limit], limit: float, changes: Iterable[tuple[float, float]]) -> None:
        self._limit = kind(limit)
        self._steps = Steps(limit, changes)
        self._rate = limit

    def change(self, limit: float) -> None:
        """Go on at another rate until the schedule says otherwise."""
        self._rate = limit
        self._limit.change(limit)

    def admit(self, now: float) -> bool:
        """Admit the call if the limit of that moment does."""
        rate = self._steps.at(now)
        if rate != self._rate:
            self._rate = rate
            if rate:
                self._limit.change(rate)
        return rate > 0 and self._limit.admit(now)
