"""Whose turn it is, in virtual time."""

from __future__ import annotations

import asyncio

from conftest import VirtualTime

from harvester.frontier import Frontier
from harvester.health import PROBE_INTERVAL, Health
from harvester.schedule import Budget, Schedule, Turn
from harvester.second_reading import SecondReading


class Dataset:
    """A member with a known number of pages, already told of them."""

    def __init__(self, name: str, last: int, health: Health | None = None, *, metered: bool = False) -> None:
        self.name = name
        self.last = last
        self.pages: Frontier | SecondReading = Frontier()
        self.health = health or Health(0.0, 300.0)
        self.metered = metered
        self.finished = False

    def answer(self, page: int) -> None:
        """Let the platform answer."""
        rows = 20 if page <= self.last else 0
        if isinstance(self.pages, SecondReading):
            self.pages.arrived(page, same=True, rows=rows)
        else:
            self.pages.arrived(page, rows, b"%d" % page if rows else b"", total=self.last * 20)


def scheduled(virtual: VirtualTime, *members: Dataset, budget: Budget | None = None) -> Schedule:
    """Return a schedule that is past its first call."""
    schedule = Schedule(members, budget or Budget(), virtual.now)
    schedule.together()
    return schedule


async def turn_of(schedule: Schedule) -> Turn:
    """Take a turn that must be there."""
    turn = await schedule.take()
    assert turn is not None
    return turn


def done(schedule: Schedule, turn: Turn, *, kept: bool = True) -> None:
    """Answer a turn and give it back."""
    member = turn.member
    assert isinstance(member, Dataset)
    if not turn.probe:
        member.answer(turn.page)
    schedule.give_back(turn, called=True, kept=kept)
    if member.pages.exhausted:
        member.finished = True
        schedule.wake()


def named(turn: Turn) -> tuple[str, int]:
    """Return whose turn it is, and the page."""
    assert isinstance(turn.member, Dataset)
    return turn.member.name, turn.page


def test_datasets_take_turns(virtual: VirtualTime) -> None:
    """Page by page, a large one does not keep a small one waiting."""

    async def main() -> None:
        schedule = scheduled(virtual, Dataset("a", 50), Dataset("b", 3))
        for _ in range(4):
            done(schedule, await turn_of(schedule))
        turns = [await turn_of(schedule) for _ in range(4)]
        assert [named(turn) for turn in turns] == [("a", 50), ("b", 3), ("a", 51), ("b", 4)], "where the totals point"
        for turn in turns:
            done(schedule, turn)
        turns = [await turn_of(schedule) for _ in range(6)]
        assert [named(turn)[0] for turn in turns] == list("ababab")

    virtual.run(main)


def test_a_metered_dataset_has_one_call_under_way(virtual: VirtualTime) -> None:
    """Where every call is paid for, the next one waits for what the last one has shown; others are not held up."""

    async def main() -> None:
        metered, free = Dataset("m", 9, metered=True), Dataset("f", 3)
        schedule = scheduled(virtual, metered, free)
        for _ in range(4):
            done(schedule, await turn_of(schedule))
        turns = [await turn_of(schedule) for _ in range(3)]
        assert [named(turn) for turn in turns] == [("m", 9), ("f", 3), ("f", 4)]
        waiting = asyncio.create_task(schedule.take())
        await asyncio.sleep(5)
        assert not waiting.done()
        done(schedule, turns[0])
        turn = await waiting
        assert turn is not None
        assert named(turn) == ("m", 10)

    virtual.run(main)


def test_a_second_reading_is_handed_out_like_a_first_one(virtual: VirtualTime) -> None:
    """Each of its pages once, and the page after the last; it is over when the dataset says so, not before."""

    async def main() -> None:
        member = Dataset("a", 3)
        schedule = scheduled(virtual, member)
        while not member.finished:
            done(schedule, await turn_of(schedule))
        member.finished = False
        schedule = scheduled(virtual, member)
        waiting = asyncio.create_task(schedule.take())
        await asyncio.sleep(5)
        assert not waiting.done(), "it may come to another phase"
        member.pages = SecondReading(3, 3, seed=1, edge=True)
        schedule.wake()
        turn = await waiting
        assert turn is not None
        turns = [turn, *[await turn_of(schedule) for _ in range(3)]]
        assert sorted(turn.page for turn in turns) == [1, 2, 3, 4]
        for turn in turns:
            done(schedule, turn)
        assert await schedule.take() is None

    virtual.run(main)


def test_a_host_that_goes_down_in_the_second_reading(virtual: VirtualTime) -> None:
    """Page 1 probes it, and what was to be read again is read when it is back."""

    async def main() -> None:
        member = Dataset("a", 3)
        member.pages = SecondReading(3, 3, seed=1)
        schedule = scheduled(virtual, member)
        done(schedule, await turn_of(schedule))
        member.health.turn_down(virtual.now())
        probe = await turn_of(schedule)
        assert (probe.page, probe.probe) == (1, True)
        assert virtual.now() >= PROBE_INTERVAL
        member.health.succeeded(virtual.now())
        done(schedule, probe)
        turns = [await turn_of(schedule) for _ in range(2)]
        assert [(turn.page, turn.probe) for turn in turns] == [(3, False), (2, False)]

    virtual.run(main)


def test_everything_is_handed_out_once_and_then_there_is_no_more(virtual: VirtualTime) -> None:
    """Eight workers, three datasets."""

    async def main() -> None:
        members = [Dataset(name, pages) for name, pages in (("a", 30), ("b", 0), ("c", 1))]
        schedule = scheduled(virtual, *members)
        seen: list[tuple[str, int]] = []

        async def work() -> None:
            while (turn := await schedule.take()) is not None:
                seen.append(named(turn))
                await asyncio.sleep(0.1)
                done(schedule, turn)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(work())
        assert all(isinstance(member.pages, Frontier) and member.pages.complete for member in members)
        assert {("a", page) for page in range(1, 31)} <= set(seen)
        assert seen.count(("a", 7)) == 1

    virtual.run(main)


def test_the_first_call_goes_alone(virtual: VirtualTime) -> None:
    """A wrong secret or clock costs one call, however many workers wait."""

    async def main() -> None:
        schedule = Schedule([Dataset("a", 9), Dataset("b", 9)], Budget(), virtual.now)
        first = await turn_of(schedule)
        second = asyncio.create_task(schedule.take())
        await asyncio.sleep(5)
        assert not second.done()
        schedule.together()
        done(schedule, first)
        assert await second is not None

    virtual.run(main)


def test_a_page_comes_back_after_its_back_off(virtual: VirtualTime) -> None:
    """Not before, and not for a dataset that was stopped in the meantime."""

    async def main() -> None:
        member = Dataset("a", 1)
        schedule = scheduled(virtual, member)
        turn = await turn_of(schedule)
        schedule.again(turn, 4.0)
        schedule.give_back(turn, called=True, kept=False)
        again = await turn_of(schedule)
        assert again.page == 1
        assert 4.0 <= virtual.now() < 4.1
        schedule.again(again, 4.0)
        schedule.give_back(again, called=True, kept=False)
        member.finished = True
        assert await schedule.take() is None

    virtual.run(main)


def test_a_page_without_back_off_comes_back_at_once(virtual: VirtualTime) -> None:
    """In its order."""

    async def main() -> None:
        schedule = scheduled(virtual, Dataset("a", 5))
        turn = await turn_of(schedule)
        schedule.again(turn, 0)
        schedule.give_back(turn, called=False, kept=False)
        assert (await turn_of(schedule)).page == 1
        assert virtual.now() < 0.1

    virtual.run(main)


def test_a_host_that_is_down_gets_one_probe_at_a_time(virtual: VirtualTime) -> None:
    """With the first page, which it has served before; the others wait until it answers."""

    async def main() -> None:
        member = Dataset("a", 20)
        schedule = scheduled(virtual, member)
        done(schedule, await turn_of(schedule))
        member.health.turn_down(virtual.now())
        probe = await turn_of(schedule)
        assert (probe.page, probe.probe) == (1, True)
        assert virtual.now() >= PROBE_INTERVAL
        waiting = asyncio.create_task(schedule.take())
        await asyncio.sleep(60)
        assert not waiting.done()
        member.health.succeeded(virtual.now())
        schedule.again(probe, 1.0)
        done(schedule, probe)
        turn = await waiting
        assert turn is not None
        assert (turn.page, turn.probe) == (2, False)

    virtual.run(main)


def test_one_host_that_is_down_does_not_hold_another_up(virtual: VirtualTime) -> None:
    """Datasets with a host of their own go on."""

    async def main() -> None:
        down, up = Dataset("down", 9), Dataset("up", 9)
        schedule = scheduled(virtual, down, up)
        down.health.turn_down(0.0)
        assert named(await turn_of(schedule)) == ("up", 1)
        assert virtual.now() < 0.1

    virtual.run(main)


def test_a_budget_of_calls_is_never_exceeded(virtual: VirtualTime) -> None:
    """What is in flight is set aside; a turn that made no call gives it back."""

    async def main() -> None:
        budget = Budget(calls=4)
        schedule = scheduled(virtual, Dataset("a", 50), budget=budget)
        for _ in range(2):
            done(schedule, await turn_of(schedule))
        two = [await turn_of(schedule), await turn_of(schedule)]
        waiting = asyncio.create_task(schedule.take())
        await asyncio.sleep(1)
        assert not waiting.done(), "the last two calls are under way"
        schedule.again(two[0], 0)
        schedule.give_back(two[0], called=False, kept=False)
        last = await waiting
        assert last is not None
        done(schedule, last)
        done(schedule, two[1])
        assert budget.spent
        assert await schedule.take() is None

    virtual.run(main)


def test_a_budget_of_pages_counts_what_is_kept() -> None:
    """A call that brought nothing costs no page."""
    budget = Budget(pages=1)

    def room() -> bool:
        return budget.room

    assert room()
    budget.take()
    assert not room()
    budget.settle(called=True, kept=False)
    assert room()
    budget.take()
    budget.settle(called=True, kept=True)
    assert not room()
    assert budget.spent
    unlimited = Budget()
    unlimited.take()
    assert unlimited.room


def test_apps_that_share_a_budget_wake_each_other(virtual: VirtualTime) -> None:
    """What one gives back, or uses up, the other is told of."""

    async def main() -> None:
        budget = Budget(calls=2)
        one = scheduled(virtual, Dataset("a", 9), budget=budget)
        other = scheduled(virtual, Dataset("b", 9), budget=budget)
        turns = [await turn_of(one), await turn_of(other)]
        waiting = [asyncio.create_task(schedule.take()) for schedule in (one, other)]
        await asyncio.sleep(1)
        assert not any(task.done() for task in waiting)
        one.again(turns[0], 0)
        one.give_back(turns[0], called=False, kept=False)
        await asyncio.sleep(0.1)
        assert sum(task.done() for task in waiting) == 1
        done(other, turns[1])
        (taken,) = [turn for task in waiting if task.done() and (turn := task.result())]
        done(one if named(taken)[0] == "a" else other, taken)
        assert [task.result() for task in waiting if await task is None] == [None]

    virtual.run(main)


def test_closing_ends_all_waiting(virtual: VirtualTime) -> None:
    """Nothing is handed out any more."""

    async def main() -> None:
        schedule = Schedule([Dataset("a", 9)], Budget(), virtual.now)
        await turn_of(schedule)
        waiting = asyncio.create_task(schedule.take())
        await asyncio.sleep(1)
        schedule.close()
        assert await waiting is None
        assert await schedule.take() is None

    virtual.run(main)
