"""At the limit, as the platform counts it: a sliding second that refuses the 301st call."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from aiolimiter import AsyncLimiter

from harvester.errors import Exit
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.simulator import Config, Simulator, jobfile

LIMIT = 300.0


async def at_the_limit(tmp_path: Path, seconds: float) -> tuple[float, int, int]:
    """Mirror for about so long; return accepted calls per second, refusals, and the most calls in any second."""
    async with Simulator(Config(rows=200_000, rate_limit=LIMIT, platforms=("wuhan",))) as simulator:
        jobfile.write(tmp_path / "job.toml", simulator.url, LIMIT, simulator.tables)
        job = Job.load(tmp_path / "job.toml", environ={})
        pages = int(seconds * LIMIT * 0.97)
        began = time.monotonic()
        result = await mirror(job, Options(max_pages=pages, datasets=("wuhan-companies",)))
        took = time.monotonic() - began
        assert result.exit is Exit.BUDGET
        counted = simulator.stats.as_dict()
        app = counted["apps"]["wuhan/sim-passid"]
        assert counted["repeated_nonces"] == 0
        assert counted["oldest_signature"] <= 5
        print(f"{app['accepted'] / took:.1f} accepted/s, {counted['refused']} refused, {app['most_calls']} in a second")
        return app["accepted"] / took, sum(counted["refused"].values()), app["most_calls"]


async def test_at_the_limit_from_the_first_second_on(tmp_path: Path) -> None:
    """Nothing is refused, no second sees more than the limit, and little of it is left unused."""
    accepted, refused, most = await at_the_limit(tmp_path, 4)
    assert refused == 0
    assert most <= LIMIT
    assert accepted >= 0.9 * LIMIT  # start and end of a short run weigh; the long one asks for more


@pytest.mark.soak
async def test_at_the_limit_for_twenty_seconds(tmp_path: Path) -> None:
    """Twenty seconds at 300 calls/s: at least 95 % accepted, nothing refused, the first second included."""
    accepted, refused, most = await at_the_limit(tmp_path, 20)
    assert refused == 0
    assert most <= LIMIT
    assert accepted >= 0.95 * LIMIT


async def test_without_the_limiter_the_platform_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: with ``acquire`` replaced by a no-op the simulator refuses at once."""

    async def acquire(_: AsyncLimiter, amount: float = 1) -> None:
        """Let everybody through."""

    monkeypatch.setattr(AsyncLimiter, "acquire", acquire)
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "no-folder"))  # alone: nothing but the limiter paces
    _, refused, most = await at_the_limit(tmp_path, 2)
    assert refused > 0
    assert most > LIMIT
