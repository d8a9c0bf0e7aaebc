"""Mirrors whole datasets from signed, rate-limited, paginated open-data platforms.

from harvester import Job, mirror
result = await mirror(Job.load("job.toml"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from harvester.harvest import mirror
    from harvester.job import Job

__version__: Final = "0.1.0"
__all__ = ["Job", "__version__", "mirror"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Import a public name when it is first asked for, so that the command line starts at once."""
    if name == "Job":
        return import_module("harvester.job").Job
    if name == "mirror":
        return import_module("harvester.harvest").mirror
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
