"""Does ``harvester bench`` find out what real gateways grant, and how they count? nginx, HAProxy, and the simulator's.

Every gateway is started with a limit and measured with ``harvester bench --url``, which is told nothing of it. The
limit is right within 2 %, or 15 % for a bucket that holds one call: nginx without a burst counts in whole
milliseconds, and what it grants then depends on how calls are spaced.

Caveats: loopback; times in front of a gateway are this machine's, with its jitter. nginx's `limit_req` with a burst
of N is a bucket of N + 1: the first call is no burst.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).with_name("gateways")))

from servers import Setting, gateway, kinds, program

BUCKETS = {"nginx-burst0": 1, "nginx-burst5": 6, "nginx-burst20": 21, "sim-token:16": 16, "sim-leaky:16": 16}
BUCKETS |= {"sim-nginx": 1, "sim-nginx:5": 6}
WINDOWS = {"haproxy": "refused count", "sim-weighted": "refused count", "sim-sliding": "sliding"}
WINDOWS |= {"sim-calendar": "calendar", "sim-first-hit": "first call"}
CLOSE, ROUGH = 0.02, 0.15  # of the limit
PATIENCE = 300.0  # seconds for one measurement


def expected(kind: str, limit: float) -> dict[str, Any]:
    """Return what is true of a gateway, as the command's JSON says it."""
    if kind in BUCKETS:
        return {"kind": "bucket", "depth": BUCKETS[kind], "window": None}
    return {"kind": WINDOWS[kind], "depth": round(limit), "window": 1.0}


def measured(kind: str, limit: float) -> dict[str, Any]:
    """Start a gateway, measure it, return what the command says."""
    with (
        tempfile.TemporaryDirectory(prefix="probe-") as name,
        gateway(kind, Path(name), Setting(limit=limit, pages=1000)) as server,
    ):
        command = [sys.executable, "-m", "harvester", "bench", "--url", server.url, "--json"]
        environment = {**os.environ, "XDG_STATE_HOME": name}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=name, timeout=PATIENCE
        )
    if done.returncode:
        raise SystemExit(f"harvester bench failed: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def is_right(counting: Mapping[str, Any], truth: Mapping[str, Any], limit: float) -> bool:
    """Tell whether kind, window, depth and limit are what they should be."""
    tolerance = ROUGH if truth["depth"] == 1 else CLOSE
    same = counting["kind"] == truth["kind"] and counting["window"] == truth["window"]
    close = counting["limit"] is not None and abs(counting["limit"] / limit - 1) <= tolerance
    return bool(same and counting["depth"] == truth["depth"] and close)


def main() -> None:
    """Measure every gateway and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [kind for kind in kinds() if kind in BUCKETS or kind in WINDOWS]
    parser.add_argument("names", nargs="*", metavar="GATEWAY", help=f"of: {', '.join(known)} (all of them)")
    parser.add_argument("--limit", type=float, default=300, metavar="N", help="calls per second (300)")
    parser.add_argument("--runs", type=int, default=1, help="of each (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"not to be had here: {', '.join(sorted(unknown))}")
    for name in ("nginx", "haproxy"):
        if path := program(name):
            shown = subprocess.run([path, "-v"], capture_output=True, text=True, check=True)
            print((shown.stdout + shown.stderr).splitlines()[0])
    print(f"harvester {version('harvester')}, Python {platform.python_version()}; {os.cpu_count()} cores")
    results, wrong = [], 0
    for kind in options.names or known:
        truth = expected(kind, options.limit)
        for _ in range(options.runs):
            report = measured(kind, options.limit)
            counting = report["counting"]
            right = is_right(counting, truth, options.limit)
            wrong += not right
            shown_window = "-" if counting["window"] is None else f"{counting['window']:g} s"
            print(
                f"{kind:14} limit {counting['limit'] or 0:7.1f}  {counting['kind']:14} window {shown_window:6} "
                f"depth {counting['depth']}  efficiency {report['efficiency'] or 0:.1%}{'' if right else '  WRONG'}",
                flush=True,
            )
            results.append({"gateway": kind, "truth": truth, "right": right, "report": report})
    print(f"{len(results) - wrong} of {len(results)} right")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
