"""Bodies found by atheris, which prefers those that reach new lines of the readers; needs ``pip install atheris``.

    PYTHONPATH=. python tests/atheris_bodies.py -runs=1000000

All options are libFuzzer's. The first byte of an input chooses the platform and what is known of the charset, the rest
is the body. Half of the changes are those of ``body_mutations``, the rest libFuzzer's own. A body that the two readers
disagree about is an uncaught exception, which libFuzzer writes to a file named ``crash-…``.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, Final

atheris: Any = import_module("atheris")  # no dependency, so that type checkers may not know it

with atheris.instrument_imports(include=["harvester"]):
    from body_mutations import good_bodies, mutated
    from body_reader import disagreement
    from msgspec.structs import replace
    from test_platforms import SPECIMENS

    from harvester.model import Reply
    from harvester.platforms import PLATFORMS

LONGEST: Final = 16_384
NAMES: Final = sorted(PLATFORMS)
BODIES: Final = {name: good_bodies(name) for name in NAMES}
DATASETS: Final = [
    (replace(SPECIMENS[name].dataset, charset=known), {"Content-Type": f"application/json{declared}"})
    for name in NAMES
    for known, declared in (("", ""), ("utf-8", ""), ("gb18030", ""), ("", ";charset=GBK"))
]


def read(data: bytes) -> None:
    """Have one body read; raise if the readers disagree."""
    if not data:
        return
    dataset, headers = DATASETS[data[0] % len(DATASETS)]
    wrong = disagreement(dataset, Reply(200, headers, data[1:]))
    if wrong:
        raise AssertionError(wrong)


def change(data: bytes, most: int, seed: int) -> bytes:
    """Change an input, within so many bytes."""
    dice = Random(seed)  # noqa: S311 - the same for the same seed
    if dice.random() < 0.5:
        return bytes(atheris.Mutate(data, most))
    name = DATASETS[data[0] % len(DATASETS)][0].app.platform if data else NAMES[0]
    bodies = [data[1:], *BODIES[name]] if len(data) > 1 and dice.random() < 0.2 else [data[1:] or b"{"]
    return (data[:1] + mutated(dice, bodies))[:most]


def main() -> None:
    """Fuzz until libFuzzer's options say stop."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, name in enumerate(NAMES):
            for index, body in enumerate(BODIES[name]):
                Path(corpus, f"{name}-{index}").write_bytes(bytes([4 * number]) + body)
        atheris.Setup([*sys.argv, f"-max_len={LONGEST}", "-timeout=10", corpus], read, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
