"""What holds a harvest back, from figures of a short one: the bottleneck, and what to change. Pure.

A stage is the bottleneck if it is used to its capacity (the utilisation law): permits by the rate they are given at,
the processor by the event loop's thread, the disk by what is still to be written at the end. Where none is, the time
that a call is under way holds it back, for the calls at once are bounded (Little's law): then it matters which part
of it is the longest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

Stage = Literal["permit", "first byte", "body", "parsing", "own work", "writing"]
"""Where the time of a worker goes; connecting, where that is needed, belongs to the wait for the first byte."""

USED: Final = 0.9  # of a capacity; more is used up
BUSY: Final = 0.8  # of the loop's time; more is a processor that has no time to spare
MOSTLY: Final = 0.5  # of the workers' time
BEHIND: Final = 0.25  # of the workers' time that goes into waiting for the disk; more is a disk that cannot follow

_ADVICE: Final[Mapping[Stage, str]] = {
    "permit": "the rate limit is the bottleneck: {used:.0%} of the permits are used at {rate:,.4g} calls/s; nothing on "
    "this side makes it faster, so ask the platform for a higher limit and raise `rate_limit`",
    "first byte": "the wait for the first byte is the bottleneck: answers begin after {each:,.3g} s on average with "
    "{workers:,} calls in flight; raise `concurrency` in [run] if the server is far away, ask its operator "
    "if it is busy",
    "body": "bandwidth is the bottleneck: a body takes {each:,.3g} s to arrive at {bytes:,.3g} MB/s in all; "
    "use a faster line, ask for fewer columns if the interface can, or have the gateway compress (gzip)",
    "parsing": "parsing is the bottleneck: it takes {each_ms:,.3g} ms of processor time a page, and the processor has "
    "none to spare; use a faster processor, or smaller pages so that others need not wait for a large one",
    "own work": "this machine's processor is the bottleneck: {busy:.0%} of one core is used, mostly to sign, send and "
    "receive; use a faster core, or keep other programs off it",
    "writing": "the disk is the bottleneck: workers wait {share:.0%} of their time for it, at {bytes:,.3g} MB/s; put "
    '`output` on a faster disk, or try compression = "zstd" in [run]',
}


class Work(Struct, frozen=True, kw_only=True):
    """Figures of a short harvest. Times are in seconds, those of stages summed over all workers.

    ``seconds`` is how long pages came in, ``drain`` how long it took after that until all of them were durable.
    ``pace`` is the rate of permits in calls a second, None without a limit. ``busy`` is the processor time of the
    event loop's thread, with what it had to wait for a processor, ``committing`` the time that the writer's worked.
    ``received`` counts the rows' bytes, ``rate`` is that of accepted calls a second after the first ones.
    """

    seconds: float
    drain: float
    workers: int
    calls: int
    accepted: int
    refused: int
    failed: int
    rate: float
    received: int
    pace: float | None
    busy: float
    committing: float
    permit: float = 0.0
    first_byte: float = 0.0
    body: float = 0.0
    parsing: float = 0.0
    writing: float = 0.0


class Diagnosis(Struct, frozen=True, kw_only=True):
    """Shares of the workers' time by stage, which add up to 1, the bottleneck, and what to change, in one sentence."""

    shares: Mapping[Stage, float]
    bottleneck: Stage
    sentence: str


def diagnose(work: Work) -> Diagnosis:
    """Find the bottleneck of a harvest that made a call at least."""
    shares = shares_of(work)
    stage = _bottleneck(work, shares)
    calls = max(1, work.calls)
    sentence = _ADVICE[stage].format(
        share=shares[stage],
        used=_used(work),
        rate=work.rate,
        workers=work.workers,
        each=(work.body if stage == "body" else work.first_byte) / calls,
        each_ms=1000 * work.parsing / calls,
        busy=work.busy / work.seconds,
        bytes=work.received / (work.seconds + work.drain) / 1e6,
    )
    return Diagnosis(shares=shares, bottleneck=stage, sentence=sentence)


def shares_of(work: Work) -> dict[Stage, float]:
    """Return where the workers' time went; while the disk catches up, all of them wait for it."""
    whole = work.workers * (work.seconds + work.drain)
    seconds: dict[Stage, float] = {
        "permit": work.permit,
        "first byte": work.first_byte,
        "body": work.body,
        "parsing": work.parsing,
        "writing": work.writing + work.workers * work.drain,
    }
    seconds["own work"] = max(0.0, whole - sum(seconds.values()))
    whole = sum(seconds.values())
    return {stage: spent / whole for stage, spent in seconds.items()}


def _bottleneck(work: Work, shares: Mapping[Stage, float]) -> Stage:
    committing = work.committing / (work.seconds + work.drain)
    if shares["writing"] > BEHIND and committing > min(USED, work.busy / work.seconds):
        return "writing"
    if _used(work) > USED or shares["permit"] > MOSTLY:
        return "permit"
    if work.busy > BUSY * work.seconds:
        return "parsing" if work.parsing > MOSTLY * work.busy else "own work"
    return "body" if shares["body"] > shares["first byte"] else "first byte"


def _used(work: Work) -> float:
    """Return the share of permits that were used."""
    return work.rate / work.pace if work.pace else 0.0
