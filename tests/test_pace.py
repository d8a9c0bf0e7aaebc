"""The pace in virtual time: hours of calls pass in a moment, and every one is counted."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from itertools import pairwise
from math import ceil, isinf
from pathlib import Path
from typing import Any, Final

import pytest
from aiolimiter import AsyncLimiter
from conftest import VirtualTime
from hypothesis import given
from hypothesis import strategies as st

from harvester.pace import (
    BURST_FROM,
    JITTER,
    LARGEST_BURST,
    LONGEST_RETRY_AFTER,
    SLACK,
    SLACK_PART,
    Pacer,
    burst_for,
    seconds,
)
from harvester.rate import LONGEST_PAUSE, WINDOW_PAUSE
from harvester.slots import SharedSlots, Slots

LIMITS: Final = [0.5, 1, 2.5, 10, 99, 99.9, 100, 300, 1000]
WALL: Final = 1_600_000_000.0  # Sun, 13 Sep 2020 12:26:40 GMT


class OwnSlots:
    """Shared moments without a file."""

    def __init__(self) -> None:
        self.free = self.resume = 0.0
        self.closed = self.taken = 0

    def take(self, now: float, count: int, interval: float, slack: float) -> float:
        """Reserve the next block."""
        self.taken += 1
        start = max(self.free, now - slack, self.resume)
        self.free = start + count * interval
        return start

    def hold(self, until: float) -> None:
        """Give nothing out before a moment."""
        self.resume = max(self.resume, until)

    def close(self) -> None:
        """Count who lets go."""
        self.closed += 1


@pytest.fixture(params=["memory", "file"])
def both_slots(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Slots]:
    """Return what gives each of two pacers its slots: one object for both, or one descriptor each."""
    own = OwnSlots()
    return lambda: own if request.param == "memory" else SharedSlots(tmp_path / "slots")


def skip(virtual: VirtualTime, length: float) -> None:
    """Let the clock be so many seconds later with nobody woken meanwhile, as after a SIGSTOP."""
    virtual._loop._jumping.slept += length


def most_in_a_second(moments: Sequence[float], window: float = 1.0) -> int:
    """Return the largest number of moments in any half-open sliding window of so many seconds."""
    return max(bisect_left(moments, moment + window - 1e-9) - index for index, moment in enumerate(moments))


def window_of(limit: float) -> tuple[float, float]:
    """Return a window in seconds and how many calls may be in it: below one call a second, its whole period."""
    return (1.0, ceil(limit)) if limit >= 1 else (1 / limit, 1)


def paced(virtual: VirtualTime, pacer: Pacer, calls: int, tasks: int = 64) -> list[float]:
    """Return when each of so many calls went, made by tasks that never wait for anything but their permit."""
    moments: list[float] = []

    async def work() -> None:
        while len(moments) + waiting[0] < calls:
            waiting[0] += 1
            permitted = await pacer.permit()
            waiting[0] -= 1
            moments.append(virtual.now())
            pacer.answered(permitted, accepted=True)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(work())

    waiting = [0]
    virtual.run(main)
    return moments


@pytest.mark.parametrize("limit", LIMITS)
def test_no_sliding_second_has_more_calls_than_the_limit(virtual: VirtualTime, limit: float) -> None:
    """From the first call on, with 64 tasks pushing."""
    moments = paced(virtual, Pacer(limit, 60, virtual.now), int(max(8, limit * 5)))
    window, most = window_of(limit)
    assert most_in_a_second(moments, window) <= most


@pytest.mark.parametrize("limit", [1, 10, 66, 100, 131, 132, 300, 1000])
def test_calls_that_are_bunched_on_the_way_keep_to_the_limit(virtual: VirtualTime, limit: float) -> None:
    """A window that is longer by 10 ms of jitter holds no more than the limit."""
    moments = paced(virtual, Pacer(limit, 60, virtual.now), int(limit * 5))
    assert most_in_a_second(moments, 1.01) <= limit


@pytest.mark.parametrize("limit", LIMITS)
def test_the_rate_is_used(virtual: VirtualTime, limit: float) -> None:
    """At least 97 % of what is granted, over a long run."""
    calls = int(max(40, limit * 10))
    moments = paced(virtual, Pacer(limit, 60, virtual.now), calls)
    assert (calls - 1) / (moments[-1] - moments[0]) >= 0.97 * limit


@pytest.mark.parametrize("limit", LIMITS)
def test_without_the_limiter_the_limit_is_exceeded(
    virtual: VirtualTime, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    """The counting above sees what it is there for: the limiter is what keeps the pace."""

    async def acquire(_self: AsyncLimiter, _amount: float = 1) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(AsyncLimiter, "acquire", acquire)
    moments = paced(virtual, Pacer(limit, 60, virtual.now), int(max(8, limit * 5)))
    window, most = window_of(limit)
    assert most_in_a_second(moments, window) > most


@pytest.mark.parametrize("limit", LIMITS)
def test_idling_saves_nothing_up(virtual: VirtualTime, limit: float) -> None:
    """After ten quiet seconds the next second is like any other."""
    pacer = Pacer(limit, 60, virtual.now)
    moments: list[float] = []

    async def work() -> None:
        permitted = await pacer.permit()
        moments.append(virtual.now())
        pacer.answered(permitted, accepted=True)

    async def main() -> None:
        for _ in range(2):
            async with asyncio.TaskGroup() as group:
                for _ in range(int(max(8, limit * 2))):
                    group.create_task(work())
            await asyncio.sleep(10)

    virtual.run(main)
    window, most = window_of(limit)
    assert most_in_a_second(moments, window) <= most


def test_a_clock_that_jumps_ahead_lets_no_more_than_the_burst_go(
    virtual: VirtualTime, both_slots: Callable[[], Slots]
) -> None:
    """A process that was stopped for five seconds and goes on: what it missed is not made up for."""
    moments: list[float] = []

    async def work(pacer: Pacer) -> None:
        while virtual.now() < 8:
            pacer.answered(await pacer.permit(), accepted=True)
            moments.append(virtual.now())

    async def main() -> None:
        with closing(Pacer(300, 60, virtual.now, slots=both_slots())) as pacer:
            async with asyncio.TaskGroup() as group:
                for _ in range(64):
                    group.create_task(work(pacer))
                await asyncio.sleep(1)
                skip(virtual, 5)

    virtual.run(main)
    after = next(moment for moment in moments if moment > 5.5)
    assert sum(after <= moment < after + 0.65 / 292.5 for moment in moments) <= LARGEST_BURST
    assert most_in_a_second(moments, 1.01) <= 300
    assert most_in_a_second([moment for moment in moments if moment > 5.5], 1.01) >= 0.97 * 300


def test_a_long_stop_while_waiting_for_the_limiter_is_no_burst(virtual: VirtualTime) -> None:
    """The same at a rate that has no burst: one call, and the next an interval later."""
    pacer = Pacer(10, 60, virtual.now)

    async def main() -> list[float]:
        await pacer.permit()
        waiting = [asyncio.create_task(pacer.permit()) for _ in range(4)]
        await asyncio.sleep(0.05)
        skip(virtual, 5)
        return [await task for task in waiting]

    moments = virtual.run(main)
    assert moments[0] > 5
    assert min(later - earlier for earlier, later in pairwise(moments)) >= 0.7 / 9.75


def test_no_limit_means_no_waiting(virtual: VirtualTime) -> None:
    """A thousand calls at one moment, as a job file may allow for loopback."""
    assert max(paced(virtual, Pacer(None, 60, virtual.now), 1000)) < 0.001


@pytest.mark.parametrize("limit", [1, 100, 300, None])
def test_a_refusal_pauses_everybody_once(virtual: VirtualTime, limit: float | None) -> None:
    """All refusals of calls that left before the pause are one episode; then one call goes alone, then all."""
    pacer = Pacer(limit, 60, virtual.now)
    moments: list[float] = []
    pauses: list[float] = []
    probe_answered = asyncio.Event()

    async def work(number: int) -> None:
        permitted = await pacer.permit()
        moments.append(virtual.now())
        if number < 20:
            await asyncio.sleep(20 / (limit or 1000))
            if pause := pacer.refused(permitted, "", WALL):
                pauses.append(virtual.now() + pause)
            return
        if number == 20:
            await asyncio.sleep(3)
            probe_answered.set()
        assert number == 20 or probe_answered.is_set(), "a call went while the probe was out"
        pacer.answered(permitted, accepted=True)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(work(number))
                if number == 19:
                    await asyncio.sleep(30 / (limit or 1000))

    virtual.run(main)
    assert len(pauses) == 1
    assert len(moments) == 60
    resumed = [moment for moment in moments if moment >= pauses[0]]
    assert resumed[1] - resumed[0] >= 3, "the probe goes alone"
    gap = max(later - earlier for earlier, later in pairwise(moments[: len(moments) - len(resumed) + 1]))
    assert gap >= WINDOW_PAUSE
    if limit is not None:
        assert most_in_a_second(moments) <= limit


def test_a_pause_holds_for_who_waits_for_the_limiter_already(virtual: VirtualTime) -> None:
    """A refusal that comes in meanwhile is heard before the call goes."""
    pacer = Pacer(1, 60, virtual.now)

    async def main() -> None:
        first = await pacer.permit()
        second = asyncio.create_task(pacer.permit())
        await asyncio.sleep(0.5)
        pause = pacer.refused(first, "10", WALL)
        assert await second >= 0.5 + pause

    virtual.run(main)


def test_pauses_double_up_to_a_bound_and_start_over_after_success(virtual: VirtualTime) -> None:
    """Each episode without a success in between is twice as long."""
    pacer = Pacer(None, 1000, virtual.now)

    async def main() -> list[float]:
        await asyncio.sleep(1)
        pauses = [pacer.refused(await pacer.permit(), "", WALL) for _ in range(8)]
        pacer.answered(await pacer.permit(), accepted=True)
        await asyncio.sleep(1)
        return [*pauses, pacer.refused(await pacer.permit(), "", WALL)]

    doubling = [min(LONGEST_PAUSE, WINDOW_PAUSE * 2**episode) for episode in range(8)]
    pauses = virtual.run(main)
    assert pauses[:8] == doubling
    assert pauses[8] <= WINDOW_PAUSE


def test_a_probe_that_says_nothing_of_the_rate_lets_another_go(virtual: VirtualTime) -> None:
    """A connection that broke ends the probe, not the episode: the next call goes alone as well."""
    pacer = Pacer(None, 1000, virtual.now)

    async def main() -> None:
        await asyncio.sleep(1)
        pacer.refused(await pacer.permit(), "", WALL)
        first = await pacer.permit()
        waiting = asyncio.create_task(pacer.permit())
        await asyncio.sleep(5)
        assert not waiting.done()
        pacer.answered(first, accepted=False)
        second = await waiting
        third = asyncio.create_task(pacer.permit())
        await asyncio.sleep(5)
        assert not third.done()
        pacer.answered(second, accepted=True)
        pacer.answered(await third, accepted=True)
        assert pacer.exhausted is False

    virtual.run(main)


def test_a_task_that_is_cancelled_while_it_waits_holds_nobody_up(virtual: VirtualTime) -> None:
    """Neither the line nor a permit is lost."""
    pacer = Pacer(2, 60, virtual.now)

    async def main() -> list[float]:
        await pacer.permit()
        waiting = [asyncio.create_task(pacer.permit()) for _ in range(3)]
        await asyncio.sleep(0.1)
        for task in waiting[:2]:
            task.cancel()
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        return [await waiting[2], await pacer.permit()]

    moments = virtual.run(main)
    assert moments == pytest.approx([0.5 / 0.975, 1 / 0.975], abs=1.01 * SLACK)


def test_patience_is_counted_from_the_first_refusal(virtual: VirtualTime) -> None:
    """One refusal is never the end; refusals for as long as the patience lasts are."""
    pacer = Pacer(None, 10, virtual.now)

    def exhausted() -> bool:
        return pacer.exhausted

    async def main() -> None:
        await asyncio.sleep(100)
        began = await pacer.permit()
        pacer.refused(began, "", WALL)
        await asyncio.sleep(50)
        assert not exhausted(), "the one refusal is all there is"
        pacer.refused(await pacer.permit(), "", WALL)
        assert exhausted()
        pacer.answered(await pacer.permit(), accepted=True)
        assert not exhausted()

    virtual.run(main)


def test_patience_that_lasts(virtual: VirtualTime) -> None:
    """Refused twice within the patience: it goes on, until a refusal comes when it has run out."""
    pacer = Pacer(None, 10, virtual.now)

    def exhausted() -> bool:
        return pacer.exhausted

    async def main() -> None:
        await asyncio.sleep(1)
        pacer.refused(await pacer.permit(), "", WALL)
        pacer.refused(await pacer.permit(), "", WALL)
        assert not exhausted()
        await asyncio.sleep(10)
        assert not exhausted(), "silence is no refusal"
        pacer.refused(await pacer.permit(), "", WALL)
        assert exhausted()

    virtual.run(main)


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("7", 7),
        ("1", WINDOW_PAUSE),
        (" 7 ", 7),
        ("0", WINDOW_PAUSE),
        ("86400", LONGEST_RETRY_AFTER),
        ("Sun, 13 Sep 2020 12:26:50 GMT", 10),
        ("Sun, 13 Sep 2020 12:00:00 GMT", WINDOW_PAUSE),
        ("Mon, 14 Sep 2020 12:26:50 GMT", LONGEST_RETRY_AFTER),
        ("soon", WINDOW_PAUSE),
        ("-5", WINDOW_PAUSE),
        ("٧", WINDOW_PAUSE),
        ("9" * 5000, LONGEST_RETRY_AFTER),
    ],
)
def test_a_server_may_ask_for_a_pause(virtual: VirtualTime, header: str, pause: float) -> None:
    """In seconds or as a date by its own clock, within bounds; what cannot be read is ignored."""
    pacer = Pacer(300, 60, virtual.now)

    async def main() -> float:
        await asyncio.sleep(1)
        refused = pacer.refused(await pacer.permit(), header, WALL)
        before = virtual.now()
        await pacer.permit()
        assert virtual.now() - before >= refused - 1e-9
        return refused

    assert virtual.run(main) == pytest.approx(pause)


@given(st.text(max_size=40) | st.from_regex(r"\w{3}, \d{1,5} \w{3} \d{1,6} \d\d:\d\d:\d\d \S{0,6}", fullmatch=True))
def test_any_header_can_be_read(header: str) -> None:
    """What a server writes there never raises; seconds are never negative."""
    asked = seconds(header, WALL)
    assert asked is None or asked >= 0


# -- the burst ----------------------------------------------------------------------------------------------------


def at_once(virtual: VirtualTime, pacer: Pacer) -> Callable[[], Coroutine[Any, Any, int]]:
    """Return what counts the calls that go within three quarters of an interval once a pacer has idled."""

    async def work(moments: list[float]) -> None:
        pacer.answered(await pacer.permit(), accepted=True)
        moments.append(virtual.now())

    async def burst() -> int:
        await asyncio.sleep(max(1.5, 5 / pacer.rate))
        moments: list[float] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(LARGEST_BURST + 2):
                group.create_task(work(moments))
        return sum(moment < moments[0] + 0.65 / pacer.rate for moment in moments)

    return burst


@pytest.mark.parametrize(("limit", "burst"), [(0.5, 1), (10, 1), (99.9, 1), (100, 2), (300, 3), (1000, 3)])
def test_the_burst_is_what_the_headroom_leaves(virtual: VirtualTime, limit: float, burst: int) -> None:
    """One below 100 calls per second; what goes at once after idling is as many."""
    pacer = Pacer(limit, 60, virtual.now)
    assert pacer.burst == burst
    assert virtual.run(at_once(virtual, pacer)) == burst


@given(st.floats(0.01, 5000), st.floats(0.01, 1))
def test_every_burst_keeps_the_inequality(limit: float, headroom: float) -> None:
    """And one more would not, unless it is the largest; one call always may go."""
    rate, burst = limit * headroom, burst_for(limit, limit * headroom)
    assert 1 <= burst <= LARGEST_BURST
    if burst > 1:
        assert limit >= BURST_FROM
        assert rate * (1 + JITTER) + SLACK_PART + burst - 1 <= limit
    if burst < LARGEST_BURST and limit >= BURST_FROM:
        assert rate * (1 + JITTER) + SLACK_PART + burst > limit


def test_after_a_cut_there_is_no_burst(virtual: VirtualTime) -> None:
    """A limit that is only believed in leaves no room for one, until the rate is back at its ceiling."""
    pacer = Pacer(300, 60, virtual.now)
    burst = at_once(virtual, pacer)

    async def main() -> tuple[int, int, int]:
        before = await burst()
        pacer.refused(await pacer.permit(), "", WALL)
        for _ in range(3):
            pacer.answered(await pacer.permit(), accepted=True)
        cut = await burst()
        await asyncio.sleep(60)  # the first look after it raises the rate by one step
        while pacer.rate < 292.5:
            pacer.answered(await pacer.permit(), accepted=True)
            await asyncio.sleep(2)
        return before, cut, await burst()

    assert virtual.run(main) == (3, 1, 3)


def test_a_rate_that_changes_is_no_burst(virtual: VirtualTime) -> None:
    """While it rises, step by step, no two calls are closer than the rate has them."""
    pacer = Pacer(300, 60, virtual.now)
    moments: list[float] = []

    async def main() -> None:
        began = virtual.now()
        while virtual.now() < began + 1.5:
            permitted = await pacer.permit()
            pacer.answered(permitted, accepted=True)
        pacer.refused(await pacer.permit(), "", WALL)
        rates = set()
        while virtual.now() < began + 16:
            permitted = await pacer.permit()
            moments.append(virtual.now())
            rates.add(pacer.rate)
            pacer.answered(permitted, accepted=True)
            await asyncio.sleep(0.0007)
        assert len(rates) >= 2

    virtual.run(main)
    assert min(later - earlier for earlier, later in pairwise(moments)) >= 0.65 / 292.5
    assert most_in_a_second(moments) <= 292.5 + 1


@pytest.mark.parametrize("headroom", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("limit", [0.5, 10, 100, 300])
def test_another_headroom_is_kept_as_well(virtual: VirtualTime, limit: float, headroom: float) -> None:
    """Neither more than the limit, nor more or much less than the part of it."""
    pacer = Pacer(limit, 60, virtual.now, headroom)
    assert pacer.rate == limit * headroom
    calls = int(max(40, limit * 10))
    moments = paced(virtual, pacer, calls)
    window, most = window_of(limit)
    assert most_in_a_second(moments, window) <= most
    assert 0.985 <= (calls - 1) / (moments[-1] - moments[0]) / pacer.rate <= 1 + LARGEST_BURST / calls


def test_who_waits_is_counted(virtual: VirtualTime) -> None:
    """Callers without a permit: those in line, the one that sleeps, not those that were cancelled or served."""
    pacer = Pacer(1, 60, virtual.now)

    async def main() -> list[int]:
        counts = [pacer.waiting]
        await pacer.permit()
        tasks = [asyncio.create_task(pacer.permit()) for _ in range(5)]
        await asyncio.sleep(0.1)
        counts.append(pacer.waiting)
        tasks[3].cancel()
        await asyncio.sleep(0.1)
        counts.append(pacer.waiting)
        await tasks[0]
        counts.append(pacer.waiting)
        await asyncio.gather(*tasks, return_exceptions=True)
        return [*counts, pacer.waiting]

    assert virtual.run(main) == [0, 5, 4, 3, 0]


def test_no_limit_holds_until_the_first_refusal(virtual: VirtualTime) -> None:
    """Then there is one: less than what went through, and calls keep to it."""
    pacer = Pacer(None, 60, virtual.now)

    async def main() -> tuple[float, float]:
        began = virtual.now()
        while virtual.now() < began + 3:
            pacer.answered(await pacer.permit(), accepted=True)
            await asyncio.sleep(0.01)
        assert isinf(pacer.rate)
        pacer.refused(await pacer.permit(), "", WALL)
        for _ in range(2):
            pacer.answered(await pacer.permit(), accepted=True)
        first = virtual.now()
        for _ in range(100):
            pacer.answered(await pacer.permit(), accepted=True)
        return pacer.rate, virtual.now() - first

    rate, took = virtual.run(main)
    assert 80 < rate < 100
    assert took == pytest.approx(100 / rate, rel=0.02)


# -- a pause that a server asks for -------------------------------------------------------------------------------


def test_sending_begins_after_the_pause_that_was_asked_for(virtual: VirtualTime) -> None:
    """Ten seconds of asked silence are no sending: what is accepted in a moment after it is no measurement."""
    pacer = Pacer(300, 60, virtual.now)

    async def send(length: float) -> None:
        end = virtual.now() + length
        while virtual.now() < end:
            pacer.answered(await pacer.permit(), accepted=True)

    async def main() -> tuple[float, float]:
        await send(3)
        pacer.refused(await pacer.permit(), "10", WALL)
        before = pacer.rate
        pacer.answered(await pacer.permit(), accepted=True)
        await send(0.2)
        pacer.refused(await pacer.permit(), "", WALL)
        return before, pacer.rate

    before, after = virtual.run(main)
    assert before > 250
    assert after == before / 2


# -- moments shared with others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2, 10, 100, 132, 300, 1000])
def test_two_that_share_keep_to_one_limit(virtual: VirtualTime, both_slots: Callable[[], Slots], limit: float) -> None:
    """Never more together than the limit, 10 ms of jitter included; 96 % of it used, 40 % and more by each."""
    gone: list[list[float]] = [[], []]
    end = max(10.0, 60 / limit)

    async def work(pacer: Pacer, moments: list[float]) -> None:
        while virtual.now() < end:
            pacer.answered(await pacer.permit(), accepted=True)
            moments.append(virtual.now())

    async def main() -> None:
        with (
            closing(Pacer(limit, 60, virtual.now, slots=both_slots())) as one,
            closing(Pacer(limit, 60, virtual.now, slots=both_slots())) as other,
        ):
            async with asyncio.TaskGroup() as group:
                for number in range(32):
                    group.create_task(work((one, other)[number % 2], gone[number % 2]))

    virtual.run(main)
    together = sorted(moment for moments in gone for moment in moments if moment < end)
    assert most_in_a_second(together) <= limit
    assert most_in_a_second(together, 1.01) <= limit
    assert (len(together) - 1) / (together[-1] - together[0]) >= 0.96 * limit
    assert min(len(moments) for moments in gone) >= 0.4 * len(together)


def test_one_that_idles_lends_all_of_it_to_the_other(virtual: VirtualTime, both_slots: Callable[[], Slots]) -> None:
    """And takes its part back at once, without a burst on top."""
    gone: list[float] = []

    async def work(pacer: Pacer, end: float) -> None:
        while virtual.now() < end:
            pacer.answered(await pacer.permit(), accepted=True)
            gone.append(virtual.now())

    async def main() -> None:
        with (
            closing(Pacer(300, 60, virtual.now, slots=both_slots())) as one,
            closing(Pacer(300, 60, virtual.now, slots=both_slots())) as other,
        ):
            async with asyncio.TaskGroup() as group:
                group.create_task(work(one, 8))
                await work(other, 1)
                await asyncio.sleep(4)
                await work(other, 8)

    virtual.run(main)
    moments = sorted(gone)
    assert most_in_a_second(moments, 1.01) <= 300
    assert sum(2 <= moment < 5 for moment in moments) >= 0.97 * 300 * 3


def test_a_pause_of_one_is_a_pause_of_the_other(virtual: VirtualTime, both_slots: Callable[[], Slots]) -> None:
    """What the other holds already is a block at most; after the pause it goes on."""
    gone: list[float] = []

    async def work(pacer: Pacer) -> None:
        while virtual.now() < 8:
            pacer.answered(await pacer.permit(), accepted=True)
            gone.append(virtual.now())

    async def main() -> None:
        with (
            closing(Pacer(300, 60, virtual.now, slots=both_slots())) as one,
            closing(Pacer(300, 60, virtual.now, slots=both_slots())) as other,
        ):
            async with asyncio.TaskGroup() as group:
                group.create_task(work(other))
                await asyncio.sleep(2)
                assert one.refused(await one.permit(), "3", WALL) == 3
                began = virtual.now()
            paused = [moment for moment in gone if began < moment < began + 3 - 0.001]
            assert len(paused) <= LARGEST_BURST
            assert max(paused, default=began) < began + 0.02
            assert sum(moment > began + 3 for moment in gone) >= 0.9 * 292.5 * (8 - began - 3)

    virtual.run(main)


def test_what_is_left_of_a_block_lapses_with_time(virtual: VirtualTime) -> None:
    """A pacer that idles has nothing put by: others have had the moments after its block."""
    slots = OwnSlots()
    pacer = Pacer(300, 60, virtual.now, slots=slots)

    async def main() -> None:
        await pacer.permit()
        await asyncio.sleep(0.002)
        await pacer.permit()
        assert slots.taken == 1
        slots.free = 100.0  # as others leave it
        await asyncio.sleep(5)
        assert await pacer.permit() == pytest.approx(100, abs=0.01)

    virtual.run(main)


def test_what_is_left_of_a_block_lapses_with_a_pause(virtual: VirtualTime) -> None:
    """Its moments are over then; the probe takes one of its own."""
    slots = OwnSlots()
    pacer = Pacer(300, 60, virtual.now, slots=slots)

    async def main() -> None:
        permitted = await pacer.permit()
        assert slots.taken == 1
        pacer.refused(permitted, "", WALL)
        await pacer.permit()
        assert slots.taken == 2
        assert slots.free >= slots.resume + 0.9 / 292.5

    virtual.run(main)


def test_closing_lets_go_of_what_is_shared(virtual: VirtualTime) -> None:
    """Once, and of nothing if there is nothing."""
    slots = OwnSlots()
    Pacer(300, 60, virtual.now, slots=slots).close()
    Pacer(300, 60, virtual.now).close()
    assert slots.closed == 1


def test_a_virtual_loop_that_hangs_says_so(virtual: VirtualTime) -> None:
    """The instrument itself: a task that waits for nothing is found."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="no timer"):
        virtual.run(main)
