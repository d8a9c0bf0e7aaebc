"""The processor time of ``harvester``'s pacing without any call, in a process of its own, on uvloop.

    python pacing_alone.py --limit 300 --seconds 10

Sixty-four tasks ask for permits and report each call as accepted. Prints the share of a core in percent and the
permits per second, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import uvloop

from harvester.pace import Pacer

TASKS = 64
WARM_UP = 0.5  # seconds
PATIENCE = 300  # seconds; no call is refused here


async def permits(limit: float, seconds: float) -> dict[str, float]:
    """Ask for permits for a while."""
    pacer = Pacer(limit, PATIENCE, time.monotonic)
    given = 0

    async def work() -> None:
        nonlocal given
        while True:
            permitted = await pacer.permit()
            given += 1
            pacer.answered(permitted, accepted=True)

    tasks = [asyncio.create_task(work()) for _ in range(TASKS)]
    await asyncio.sleep(WARM_UP)
    before, began, cpu = given, time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    figures = {"core_percent": 100 * (time.process_time() - cpu) / took, "permits_per_s": (given - before) / took}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return figures


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(permits(options.limit, options.seconds))))


if __name__ == "__main__":
    main()
