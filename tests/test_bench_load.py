"""Calls of an open-loop schedule against scripted portals on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from scripted_portal import Portal, Script, good, portal, reply

from harvester.bench.load import Bound, Calls, TimedSender, now, settle
from harvester.bench.offering import Offer, even
from harvester.ledger import Ledger
from harvester.model import App, Dataset, Secret
from harvester.pace import Pacer
from harvester.platforms import PLATFORMS

OVER_LIMIT = {"errcode": 1141, "errmsg": "over the limit", "data": {"data": []}}


@asynccontextmanager
async def calls_to(
    script: Script, bound: Bound | None = None, ledger: Ledger | None = None
) -> AsyncIterator[tuple[Calls, Portal]]:
    """Serve a script; yields what calls it."""
    async with portal(script) as (served, url):
        app = App(name="a", platform="wuhan", url=url, id="id", secret=Secret("token"), rate_limit=None)
        async with TimedSender.of(app, 5) as sender:
            yield (
                Calls(
                    dataset=Dataset(name="d", app=app, service="d", page_param="pageNo"),
                    platform=PLATFORMS["wuhan"],
                    sender=sender,
                    clock=time.time,
                    bound=bound or Bound(),
                    ledger=ledger,
                ),
                served,
            )


async def test_every_call_asks_for_the_first_page_with_a_nonce_of_its_own() -> None:
    """Again and again; its rows are read as ever."""
    async with calls_to(lambda page, _: good(page)) as (calls, served):
        answers = await calls.offer(Offer(moments=even(1000, 0.01), rate=1000.0), 64)
    assert [answer.outcome for answer in answers] == ["accepted"] * 10
    assert served.asked == {1: 10}
    assert len(set(served.nonces)) == 10


async def test_the_parts_of_a_call_are_told() -> None:
    """The head is late by what the server takes, the body by what the line does."""

    async def slow(_: int, __: int) -> web.Response:
        await asyncio.sleep(0.05)
        return good(1)

    async with calls_to(slow) as (calls, _):
        made = await calls.make()
    assert made.outcome == "accepted"
    assert made.page is not None
    assert made.page.rows == 20
    assert made.head - made.sent >= 0.05
    assert made.sent < made.head <= made.whole <= made.read


async def test_calls_leave_whether_or_not_earlier_ones_are_back() -> None:
    """The first is answered last, and its latency is its own."""

    async def first_is_slow(_: int, time_asked: int) -> web.Response:
        if time_asked == 1:
            await asyncio.sleep(0.2)
        return good(1)

    async with calls_to(first_is_slow) as (calls, served):
        answers = await calls.offer(Offer(moments=(0.0, 0.05, 0.1), rate=20.0), 64)
    assert [round(answer.meant, 2) for answer in answers] == [0.05, 0.1, 0.0]
    assert answers[2].done - answers[2].meant >= 0.2
    assert served.most_in_flight >= 2


async def test_who_waits_for_room_waits_on_the_servers_account() -> None:
    """With one call at a time, the third has waited for two others since the moment that was meant."""

    async def slow(_: int, __: int) -> web.Response:
        await asyncio.sleep(0.05)
        return good(1)

    async with calls_to(slow) as (calls, served):
        answers = await calls.offer(Offer(moments=(0.0, 0.0, 0.0), rate=1000.0), 1)
    assert served.most_in_flight == 1
    assert max(answer.done - answer.meant for answer in answers) >= 0.15


async def test_refusals_and_failures_are_told_apart() -> None:
    """Refusals are for the rate, what else goes wrong is counted with its reason."""
    script = [good(1), reply(OVER_LIMIT), reply({"errcode": 500, "errmsg": "oops"}), web.Response(status=503)]
    async with calls_to(lambda _, time_asked: script[time_asked - 1]) as (calls, _):
        outcomes = [(await calls.make()).outcome for _ in script]
    assert outcomes == ["accepted", "refused", "failed", "failed"]
    assert sorted(calls.failures.values()) == [1, 1]
    assert any(why.startswith("500: ") for why in calls.failures)


async def test_nobody_there_is_a_failure() -> None:
    """Not an error of the command."""
    async with calls_to(lambda page, _: good(page)) as (calls, _):
        calls._dataset = Dataset(
            name="d",
            app=App(name="a", platform="wuhan", url="http://127.0.0.1:1/", id="", secret=Secret(""), rate_limit=None),
            service="d",
        )
        made = await calls.make()
    assert (made.outcome, made.page) == ("failed", None)
    assert "no connection" in made.failure


async def test_no_more_calls_than_are_allowed() -> None:
    """The rest of an offer is left out."""
    async with calls_to(lambda page, _: good(page), Bound(calls=4)) as (calls, served):
        answers = await calls.offer(Offer(moments=even(100, 0.1), rate=100.0), 64)
        assert calls.bound.spent
    assert len(answers) == served.asked[1] == 4


async def test_no_calls_after_the_time_that_is_allowed() -> None:
    """Also within an offer."""
    async with calls_to(lambda page, _: good(page), Bound(until=now() + 0.1)) as (calls, served):
        answers = await calls.offer(Offer(moments=even(100, 1), rate=100.0), 64)
    assert 1 <= len(answers) <= 15
    assert served.asked[1] == len(answers)


async def test_the_ledger_counts_and_ends_it(tmp_path: Path) -> None:
    """A dataset with an allowance is called no more often than that."""
    ledger = Ledger(tmp_path / "calls", 3, "day", time.time)
    try:
        async with calls_to(lambda page, _: good(page), ledger=ledger) as (calls, served):
            answers = await calls.offer(Offer(moments=even(100, 0.1), rate=100.0), 1)
            assert calls.bound.used_up
        assert (len(answers), served.asked[1], ledger.state().left) == (3, 3, 0)
    finally:
        ledger.close()


async def test_the_first_refusal_ends_what_is_paced() -> None:
    """A platform that refuses is not asked for the rest; its pacer knows."""
    pacer = Pacer(100, 60, now)
    async with calls_to(lambda _, time_asked: good(1) if time_asked < 4 else reply(OVER_LIMIT)) as (calls, served):
        answers = await calls.offer(Offer(moments=even(50, 1), rate=50.0), 64, pacer)
    assert [answer.outcome for answer in answers] == ["accepted"] * 3 + ["refused"]
    assert served.asked[1] == 4
    assert pacer.rate < 90


async def test_an_accepted_call_is_told_to_the_pacer() -> None:
    """It ends a pause's probing."""
    pacer = Pacer(100, 60, now)
    async with calls_to(lambda page, _: good(page)) as (calls, _):
        made = await calls.make()
    permitted = await pacer.permit()
    settle(pacer, permitted, made)
    assert pacer.rate == pytest.approx(97.5)
