"""Load on one dataset's gateway: calls by an open-loop schedule, or a short harvest whose pages go to a scratch folder.

Every call takes the way that a run's take: built and signed by the platform, sent by the sender, read by the platform,
counted in the ledger. It asks for the first page, again and again, and nothing of it gets into a mirror.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from msgspec import Struct

from harvester.bench.offering import Answer, Offer, Outcome
from harvester.ledger import Ledger
from harvester.model import Dataset, Kind, Page, Platform
from harvester.pace import Pacer
from harvester.send import Sender, SendError

NEAR: Final = 0.001  # seconds; a moment so near is now, for timers have whole milliseconds

now: Final = time.monotonic  # the loop's own clock may stand still for as long as the loop is busy
_head: ContextVar[float] = ContextVar("head")  # when the head of the present call's answer was in


class TimedSender(Sender):
    """A sender that notes when the head of an answer is in."""

    async def _whole(self, *args: Any) -> bytes:  # noqa: ANN401 - whatever the sender gives it
        _head.set(now())
        return await super()._whole(*args)


class Bound:
    """Calls that may still be made, and until when; None: as many as one likes, as long as one likes.

    Args:
        calls: how many.
        until: a time of ``now``.
    """

    def __init__(self, calls: int | None = None, until: float | None = None) -> None:
        self.calls = calls
        self.until = until
        self.used_up = False  # the ledger grants no more

    @property
    def spent(self) -> bool:
        """Whether no further call may be made."""
        late = self.until is not None and now() >= self.until
        return self.used_up or late or (self.calls is not None and self.calls <= 0)

    def take(self) -> bool:
        """Take one call, if there is one."""
        if self.spent:
            return False
        if self.calls is not None:
            self.calls -= 1
        return True


class Made(Struct, frozen=True, kw_only=True, gc=False):
    """A call that was made: times of ``now`` at which it was sent, its head was in, its body, and it was read."""

    outcome: Outcome
    sent: float
    head: float
    whole: float
    read: float
    page: Page | None = None
    retry_after: str = ""
    failure: str = ""


class Calls:
    """Calls for the first page of a dataset.

    Args:
        dataset: which.
        platform: its platform.
        sender: over which connections.
        clock: tells the platform's time, once it is known.
        bound: what may be called.
        ledger: where calls are counted, if they are.
    """

    def __init__(
        self,
        *,
        dataset: Dataset,
        platform: Platform,
        sender: TimedSender,
        clock: Callable[[], float],
        bound: Bound,
        ledger: Ledger | None,
    ) -> None:
        self.bound = bound
        self.failures: dict[str, int] = {}
        self._dataset = dataset
        self._platform = platform
        self._sender = sender
        self._clock = clock
        self._ledger = ledger

    async def take(self) -> bool:
        """Take leave to make one call: from what the caller of the command allows, and from the ledger."""
        if not self.bound.take():
            return False
        if self._ledger is not None and not await asyncio.to_thread(self._ledger.take):
            self.bound.used_up = True
            return False
        return True

    async def make(self) -> Made:
        """Make one call, for which leave was taken."""
        dataset = self._dataset
        sent = now()
        request = self._platform.build(dataset, dataset.first_page)
        signed = self._platform.sign(request, dataset.app, self._clock(), str(uuid.uuid4()))
        _head.set(0.0)
        try:
            reply = await self._sender.send(signed)
        except SendError as error:
            return self._failed(sent, _head.get(), now(), error.text)
        whole = now()
        found = self._platform.read(dataset, reply)
        head, read = min(_head.get() or whole, whole), now()
        if isinstance(found, Page):
            return Made(outcome="accepted", sent=sent, head=head, whole=whole, read=read, page=found)
        if found.kind is Kind.OVER_LIMIT:
            return Made(outcome="refused", sent=sent, head=head, whole=whole, read=read, retry_after=found.retry_after)
        return self._failed(sent, head, read, f"{found.code}: {found.meaning}")

    def _failed(self, sent: float, head: float, now: float, why: str) -> Made:
        self.failures[why] = self.failures.get(why, 0) + 1
        return Made(outcome="failed", sent=sent, head=head or now, whole=now, read=now, failure=why)

    async def offer(self, offer: Offer, most: int, pacer: Pacer | None = None) -> list[Answer]:
        """Make the calls of an offer at their moments, whether or not earlier ones are back; wait for all answers.

        Where the bound ends it the rest is left out. More than ``most`` calls are not under way at once; whoever waits
        for that does so on the server's account, because latency counts from the moment that was meant.

        Args:
            offer: when.
            most: calls under way.
            pacer: whose permit every call waits for; then the first refusal ends the offer.
        """
        await asyncio.sleep(offer.idle)
        begun, room = now(), asyncio.Semaphore(most)
        answers: list[Answer] = []
        refused = False

        async def call(meant: float) -> None:
            nonlocal refused
            async with room:
                permitted = 0.0 if pacer is None else await pacer.permit()
                if refused or not await self.take():
                    return
                made = await self.make()
                answers.append(Answer(meant, made.sent - begun, made.read - begun, made.outcome))
                if pacer is not None:
                    settle(pacer, permitted, made)
                    refused |= made.outcome == "refused"

        async with asyncio.TaskGroup() as group:
            for moment in offer.moments:
                if (wait := begun + moment - now()) > NEAR:
                    await asyncio.sleep(wait)
                if refused or self.bound.spent:
                    break
                group.create_task(call(moment))
        return answers


def settle(pacer: Pacer, permitted: float, made: Made) -> None:
    """Tell a pacer what became of a call that it permitted."""
    if made.outcome == "refused":
        pacer.refused(permitted, made.retry_after, time.time())
    else:
        pacer.answered(permitted, accepted=made.outcome == "accepted")
