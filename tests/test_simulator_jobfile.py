"""The job file that goes with a simulator."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from harvester.errors import LocalError
from harvester.simulator.jobfile import write
from harvester.simulator.tables import StoredTable

URL = "http://127.0.0.1:8765"
TABLES = {
    "wuhan": {"companies": StoredTable([], (), '企业 "A" \\ \x7f')},
    "sipop": {"patent.search": StoredTable([], (), "专利检索")},
}


def test_job_file_lists_everything(tmp_path: Path) -> None:
    """Valid TOML with both apps and all datasets; the platform in front of a name keeps names apart."""
    write(tmp_path / "job.toml", URL, 300.0, TABLES)
    assert tomllib.loads((tmp_path / "job.toml").read_text(encoding="utf-8")) == {
        "output": "mirror",
        "apps": {
            "wuhan": {
                "platform": "wuhan",
                "passid": "sim-passid",
                "token": {"file": "job.wuhan.secret"},
                "url": "http://127.0.0.1:8765/ebus/kftp/v1/service/",
                "rate_limit": 300,
            },
            "sipop": {
                "platform": "sipop",
                "app_key": "sim-app-key",
                "app_secret": {"file": "job.sipop.secret"},
                "url": "http://127.0.0.1:8765/dataplatpro/api/route",
                "rate_limit": 300,
            },
        },
        "datasets": {
            "wuhan-companies": {"app": "wuhan", "title": '企业 "A" \\ \x7f', "service": "companies"},
            "sipop-patent.search": {
                "app": "sipop",
                "title": "专利检索",
                "method": "patent.search",
                "page_size": 50,
            },
        },
    }


def test_secrets_are_for_the_owner_only(tmp_path: Path) -> None:
    """Also where a file with a wider mode stood before."""
    old = tmp_path / "job.wuhan.secret"
    old.write_text("something longer than the secret that replaces it")
    old.chmod(0o644)
    write(tmp_path / "job.toml", URL, 300, TABLES)
    for platform, secret in (("wuhan", "sim-wuhan-token"), ("sipop", "sim-sipop-secret")):
        file = tmp_path / f"job.{platform}.secret"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text() == f"{secret}\n"
        assert secret not in (tmp_path / "job.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("limit", "written"), [(None, "none"), (0.5, 0.5), (1234567.0, 1234567)])
def test_rate_limit_is_written_as_it_is(tmp_path: Path, limit: float | None, written: object) -> None:
    """No limit is a word that loopback addresses may use."""
    write(tmp_path / "job.toml", URL, limit, {"wuhan": {}})
    job = tomllib.loads((tmp_path / "job.toml").read_text(encoding="utf-8"))
    assert job["apps"] == {"wuhan": {**job["apps"]["wuhan"], "rate_limit": written}}
    assert not (tmp_path / "job.sipop.secret").exists()


def test_unwritable_place_is_said(tmp_path: Path) -> None:
    """The message names the file that could not be written."""
    with pytest.raises(LocalError, match=r"absent.+: No such file"):
        write(tmp_path / "absent" / "job.toml", URL, 300, TABLES)
