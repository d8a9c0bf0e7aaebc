"""The pace in virtual time: hours of calls pass in a moment, and every one is counted."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import pytest
from aiolimiter import AsyncLimiter
from conftest import VirtualTime
from hypothesis import given
from hypothesis import strategies as st

from harvester.pace import FIRST_PAUSE, LONGEST_PAUSE, LONGEST_RETRY_AFTER, Pacer, seconds

LIMITS = [0.5, 1, 2.5, 10, 99, 99.9, 100, 300, 1000]
WALL = 1_600_000_000.0  # Sun, 13 Sep 2020 12:26:40 GMT


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
    assert gap >= FIRST_PAUSE
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

    doubling = [min(LONGEST_PAUSE, FIRST_PAUSE * 2**episode) for episode in range(8)]
    assert virtual.run(main) == [*doubling, FIRST_PAUSE]


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
    assert moments == pytest.approx([0.5 / 0.975, 1 / 0.975])


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
    """Refused twice within the patience: it goes on."""
    pacer = Pacer(None, 10, virtual.now)

    def exhausted() -> bool:
        return pacer.exhausted

    async def main() -> None:
        await asyncio.sleep(1)
        pacer.refused(await pacer.permit(), "", WALL)
        pacer.refused(await pacer.permit(), "", WALL)
        assert not exhausted()
        await asyncio.sleep(10)
        assert exhausted()

    virtual.run(main)


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", FIRST_PAUSE),
        ("86400", LONGEST_RETRY_AFTER),
        ("Sun, 13 Sep 2020 12:26:50 GMT", 10),
        ("Sun, 13 Sep 2020 12:00:00 GMT", FIRST_PAUSE),
        ("Mon, 14 Sep 2020 12:26:50 GMT", LONGEST_RETRY_AFTER),
        ("soon", FIRST_PAUSE),
        ("-5", FIRST_PAUSE),
        ("٧", FIRST_PAUSE),
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


def test_a_virtual_loop_that_hangs_says_so(virtual: VirtualTime) -> None:
    """The instrument itself: a task that waits for nothing is found."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="no timer"):
        virtual.run(main)
