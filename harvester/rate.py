"""How fast an app may call: the configured rate as a ceiling, and below it what the platform is seen to accept.

Refusals come in episodes. One episode is one reaction, however many calls it refuses: those that were permitted
before the reaction say nothing new. What is known of a limiter is what it accepts:

* After a second and more of steady sending the accepted calls are the limit, so the rate becomes a little less.
* Before that they may be what a full bucket or an empty window let through, so the rate goes back to what was
  held before, or is halved: a guess, from which it rises again soon.
* If nothing at all was accepted since the last pause, nothing was learnt: the pauses grow, and the first call that is
  accepted brings back the rate from before.

It recovers by time, not by successes: after some quiet seconds it rises by a little, then by more.
"""

from __future__ import annotations

from collections import deque
from math import isinf
from typing import Final

STEADY: Final = 1.0  # seconds of sending that make a count of accepted calls a measurement
ENOUGH: Final = 8  # accepted calls that make it one
BELOW: Final = 0.97  # of what was accepted
SHORT_PAUSE: Final = 0.15  # seconds
WINDOW_PAUSE: Final = 1.05  # seconds; any one-second window is empty after it
LOCKED_OUT: Final = 2  # episodes without anything accepted that are more than windows that had not emptied
LONGEST_PAUSE: Final = 8.0  # seconds between probes while everything is refused
AGAIN_WITHIN: Final = 3.0  # seconds; two episodes so close ask for windows to be emptied
QUIET: Final = 10.0  # seconds without refusal before the first rise
RISE_EVERY: Final = 2.0  # seconds between rises
FIRST_RISE: Final = 0.005  # of the rate
SOON: Final = 1.5  # seconds without refusal before the first rise after a guess
SOON_RISE: Final = 0.12  # of the rate
LARGEST_RISE: Final = 0.16  # of the rate
BACK: Final = 0.9  # of the rate, when a rate as high was held a moment ago
FALLS: Final = 3  # such steps before the rate is halved
SLOWEST: Final = 1 / 60  # calls per second


class Rate:
    """The rate of one app; ``now`` is a monotonic reading in seconds.

    Args:
        ceiling: calls per second that are never exceeded; may be infinite.
        now: when sending may begin.
    """

    def __init__(self, ceiling: float, now: float) -> None:
        self.value = ceiling
        self.cut = False  # a limit below the ceiling is believed in
        self._ceiling = ceiling
        self._accepted: deque[float] = deque()  # when, within the last ``STEADY`` seconds of sending
        self._since = now  # when sending began at this rate
        self._episode = -1.0  # when the last reaction was
        self._lockouts = 0  # episodes since anything was accepted
        self._former = ceiling  # the rate before the last cut
        self._held = 0.0  # the last rate that went without a refusal until it rose
        self._falls = 0  # guesses since then
        self._rise = FIRST_RISE
        self._rise_at = now + QUIET

    def accepted(self, permitted: float, now: float) -> None:
        """Note an accepted call."""
        if permitted <= self._episode:
            return
        if self._lockouts:
            if self._lockouts >= LOCKED_OUT:
                # What was refused was everything, so it said nothing about a rate; it may have risen above that since.
                self.value = max(self.value, self._former)
            self._lockouts = 0
            self._since = now
        self._accepted.append(now)
        while self._accepted[0] <= now - STEADY:
            self._accepted.popleft()

    def refused(self, permitted: float, now: float, asked: float = 0.0) -> float:
        """Note a refused call; return for how many seconds everybody pauses, 0 if this episode is known.

        The pause is no shorter than the platform has ``asked`` for, in seconds.
        """
        if permitted <= self._episode:
            return 0.0
        close = now - self._episode <= AGAIN_WITHIN and self._episode >= 0
        sending = now - self._since
        if not self._accepted:
            self._lockouts += 1
            pause = min(LONGEST_PAUSE, WINDOW_PAUSE * 2.0 ** min(self._lockouts - 1, 8))
            rise, quiet = FIRST_RISE, QUIET
        else:
            self._former = self.value
            measured = sending >= STEADY and len(self._accepted) >= ENOUGH
            per_second = len(self._accepted) / min(STEADY, max(sending, 1e-3))
            self.value = max(SLOWEST, self._lower(BELOW * per_second if measured else None, per_second))
            pause = WINDOW_PAUSE if close or sending < STEADY else SHORT_PAUSE
            rise, quiet = (FIRST_RISE, QUIET) if measured else (SOON_RISE, SOON)
        pause = max(pause, asked)
        self.cut = True
        self._episode = now
        self._accepted.clear()
        self._since = now + pause
        self._rise, self._rise_at = rise, now + pause + quiet
        return pause

    def _lower(self, measured: float | None, sending_rate: float) -> float:
        """Return the next rate: what was measured, else a little below what was held before, else half."""
        if measured is not None:
            return min(self.value, measured)
        if self._held and self._falls < FALLS:
            self._falls += 1
            return min(self._held, BACK * self.value)
        self._held = 0.0
        return sending_rate / 2 if isinf(self.value) else self.value / 2

    def advance(self, now: float) -> None:
        """Let time pass: rise if it has been quiet."""
        if not self.cut or now < self._rise_at or self._lockouts:
            return
        self._held, self._falls = self.value, 0
        self.value = min(self._ceiling, self.value * (1 + self._rise))
        self._rise = min(LARGEST_RISE, 2 * self._rise)
        self._rise_at = now + RISE_EVERY
        self.cut = self.value < self._ceiling

    @property
    def locked_out(self) -> bool:
        """Whether nothing has been accepted since the last refusal but one."""
        return self._lockouts > 0
