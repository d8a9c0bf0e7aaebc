"""What a simulated platform counted: plain numbers per app, and answers per page."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

MAX_PAGES: Final = 1_000_000
"""Distinct pages that are counted one by one, about 100 bytes each; answers for others go to ``pages_not_listed``."""

MAX_SECONDS: Final = 3_600
"""Seconds with calls that are counted one by one, per app; beyond, the oldest are dropped."""


class Peak:
    """The most events in any one second, which is half open: events exactly 1 s apart are not in the same one."""

    def __init__(self) -> None:
        self.most = 0
        self._recent: deque[float] = deque()

    def add(self, now: float) -> None:
        """Count an event at ``now`` (seconds, never decreasing)."""
        recent = self._recent
        recent.append(now)
        while now - recent[0] >= 1.0:
            recent.popleft()
        self.most = max(self.most, len(recent))


class AppStats:
    """Counts of one app.

    ``oldest_signature`` is the greatest age in seconds that a rightly signed call had on arrival; both platforms'
    timestamps are whole seconds, so up to one second of it is rounding. ``quota_used`` holds the calls by service in
    the quota's present period; it belongs to the quota, and clearing leaves it as it is.
    """

    def __init__(self) -> None:
        self.quota_used: Mapping[str, int] = {}
        self._began: float | None = None
        self.clear()

    def clear(self) -> None:
        """Start again from zero."""
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.repeated_nonces = 0
        self.oldest_signature = 0.0
        self._arrivals = Peak()
        self._acceptances = Peak()
        self._seconds: deque[list[int]] = deque(maxlen=MAX_SECONDS)

    @property
    def calls(self) -> int:
        """Calls that arrived and were answered, in whatever way."""
        return self.accepted + self.refused.total()

    @property
    def most_calls(self) -> int:
        """The most arrivals in any second, refused ones included."""
        return self._arrivals.most

    @property
    def most_accepted(self) -> int:
        """The most accepted calls in any second, by time of arrival."""
        return self._acceptances.most

    @property
    def per_second(self) -> list[list[int]]:
        """``[second, calls, accepted, refused]`` of every second with calls, counted from the app's first call ever."""
        return [[second, accepted + refused, accepted, refused] for second, accepted, refused in self._seconds]

    def arrive(self, now: float) -> None:
        """Count an arrival at ``now``, seconds of a clock that never goes back."""
        self._arrivals.add(now)

    def sign(self, age: float) -> None:
        """Note the age in seconds of a right signature."""
        self.oldest_signature = max(self.oldest_signature, age)

    def accept(self, now: float) -> None:
        """Count an answer that reports success, for a call that arrived at ``now``."""
        self.accepted += 1
        self._acceptances.add(now)
        self._second(now)[1] += 1

    def refuse(self, code: str, now: float) -> None:
        """Count a failure by the platform's code, for a call that arrived at ``now``."""
        self.refused[code] += 1
        self._second(now)[2] += 1

    def _second(self, now: float) -> list[int]:
        if self._began is None:
            self._began = now
        second = int(now - self._began)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        return self._seconds[-1]

    def as_dict(self) -> dict[str, Any]:
        """Return the counts under the names that the stats answer uses."""
        return {
            "calls": self.calls,
            "accepted": self.accepted,
            "refused": dict(self.refused),
            "most_calls": self.most_calls,
            "most_accepted": self.most_accepted,
            "repeated_nonces": self.repeated_nonces,
            "oldest_signature": round(self.oldest_signature, 3),
            "quota_used": dict(self.quota_used),
            "per_second": self.per_second,
        }


class Stats:
    """Counts of all apps, keyed ``platform/id`` (``platform/unknown`` for ids that are not registered).

    The following are kept per ``platform/dataset``, for calls that got as far as its pages; those that a gatekeeper
    refused are not among them, those that a quirk gave no rows or a failure are. ``pages`` holds how often each page
    was asked for, ``dataset_calls`` the calls for all its pages, ``beyond`` those for pages behind the last one of
    that moment (of an empty dataset: behind the first). ``proxy_errors`` are calls that never reached a platform, and
    no app's. ``faults`` holds by kind how many calls something went wrong with on the wire; unless the fault was an
    early one, the call is an app's as well.
    """

    def __init__(self, *, max_pages: int = MAX_PAGES) -> None:
        self.apps: dict[str, AppStats] = {}
        self.pages: dict[str, dict[int, int]] = {}
        self.dataset_calls: Counter[str] = Counter()
        self.beyond: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.pages_not_listed = self.proxy_errors = 0
        self._room = self._max_pages = max_pages

    def app(self, key: str) -> AppStats:
        """Return the counts of an app, made when first asked for."""
        return self.apps.setdefault(key, AppStats())

    def page(self, dataset: str, number: int, last: int) -> None:
        """Count a call for a page of a dataset whose last one is ``last``, 0 if it has none."""
        self.dataset_calls[dataset] += 1
        if number > last and number > 1:
            self.beyond[dataset] += 1
        pages = self.pages.setdefault(dataset, {})
        if number in pages:
            pages[number] += 1
        elif self._room:
            pages[number] = 1
            self._room -= 1
        else:
            self.pages_not_listed += 1

    def clear(self) -> None:
        """Start again from zero; what the platforms remember (nonces, windows) is not touched."""
        for app in self.apps.values():
            app.clear()
        for counts in (self.pages, self.dataset_calls, self.beyond, self.faults):
            counts.clear()
        self.pages_not_listed = self.proxy_errors = 0
        self._room = self._max_pages

    @property
    def calls(self) -> int:
        """Calls of all apps."""
        return sum(app.calls for app in self.apps.values())

    @property
    def accepted(self) -> int:
        """Calls of all apps that were answered with success."""
        return sum(app.accepted for app in self.apps.values())

    @property
    def refused(self) -> Counter[str]:
        """Refusals of all apps by the platforms' code; the platforms have no code in common."""
        return sum((app.refused for app in self.apps.values()), Counter())

    @property
    def repeated_nonces(self) -> int:
        """Calls whose nonce had been used before."""
        return sum(app.repeated_nonces for app in self.apps.values())

    @property
    def oldest_signature(self) -> float:
        """The greatest age in seconds of a right signature on arrival."""
        return max((app.oldest_signature for app in self.apps.values()), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, as ``GET /_simulator/stats`` sends it."""
        return {
            "calls": self.calls,
            "accepted": self.accepted,
            "refused": dict(self.refused),
            "repeated_nonces": self.repeated_nonces,
            "oldest_signature": round(self.oldest_signature, 3),
            "apps": {key: app.as_dict() for key, app in self.apps.items()},
            "pages": self.pages,
            "dataset_calls": self.dataset_calls,
            "beyond": self.beyond,
            "pages_not_listed": self.pages_not_listed,
            "proxy_errors": self.proxy_errors,
            "faults": self.faults,
        }
