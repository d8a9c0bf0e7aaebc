"""A simulation beside the process that measures it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harvester.bench.simulator_process import simulated
from harvester.errors import LocalError
from harvester.job import Job
from harvester.simulator import Config


def test_it_serves_as_long_as_the_block_lasts(tmp_path: Path) -> None:
    """The job file leads to it; afterwards nobody is there."""
    with simulated(Config(rows=10, rate_limit=7), tmp_path / "job.toml"):
        app = Job.load(tmp_path / "job.toml").datasets[0].app
        address = urlsplit(app.url)
        assert app.rate_limit == 7
        assert _connects(address.port)
    assert not _connects(address.port)


def test_why_it_cannot_be_had_is_told(tmp_path: Path) -> None:
    """In the words of the simulator."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = Config(rows=10, port=taken.getsockname()[1])
        with pytest.raises(LocalError, match="cannot listen on"), simulated(config, tmp_path / "job.toml"):
            raise AssertionError(os.getpid())


def _connects(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) == 0
