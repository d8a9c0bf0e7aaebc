"""Tables, facts and the drawing of a measurement."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace
from test_bench_diagnosis import golden

from harvester.bench.counting import Counting
from harvester.bench.diagnosis import diagnose
from harvester.bench.offering import Step
from harvester.bench.report import Report, content, facts, sentence, svg, table

STEP = Step(
    offered=400.0,
    accepted=300.0,
    refused=100.0,
    failed=0.0,
    calls=520,
    p50=0.0012,
    p90=0.003,
    p99=0.0405,
    longest=0.05,
    growth=0.0,
)
REPORT = Report(
    dataset="investors",
    address="http://127.0.0.1:1/service/investors",
    own=True,
    steps=(replace(STEP, offered=100.0, accepted=100.0, refused=0.0), STEP),
    counting=Counting(kind="sliding", limit=110.0, window=1.0, depth=110),
    granted=110.0,
    work=golden(),
    diagnosis=diagnose(golden()),
    calls=1000,
)


def test_the_table_has_a_line_for_each_step() -> None:
    """Latencies are in milliseconds."""
    assert table(REPORT)[0][:5] == ["offered/s", "accepted/s", "refused/s", "failed/s", "p50 ms"]
    assert table(REPORT)[2] == ["400.0", "300.0", "100.0", "0.0", "1.2", "3.0", "40.5", "50.0"]


def test_facts_of_an_own_gateway() -> None:
    """The limit, how it counts, what a harvest got of it, and where its time went."""
    assert dict(facts(REPORT)) == {
        "limit": "110.0 calls/s",
        "counts by": "a sliding window that counts accepted calls, 1 s long, 110 calls in it",
        "harvest": "100.0 pages/s with 10 calls in flight, 0 refused",
        "efficiency": "90.9% of the limit",
        "workers' time": "permit 80.0%, first byte 10.0%, own work 4.0%, body 3.0%, parsing 2.0%, writing 1.0%",
    }


def test_a_platforms_limit_is_not_observed() -> None:
    """It was never offered more than the job file grants, and efficiency is of that."""
    report = replace(REPORT, own=False, counting=Counting(kind="unknown", remark="not observed"), granted=200.0)
    found = dict(facts(report))
    assert found["limit"] == "not observed: offered no more than the 200 calls/s of `rate_limit`"
    assert found["efficiency"] == "50.0% of `rate_limit`"
    assert "counts by" not in found
    assert report.limit is None


def test_no_limit_is_said_with_what_was_reached() -> None:
    """Without one there is no efficiency."""
    report = replace(REPORT, counting=Counting(kind="none", remark="calls pile up"), granted=None)
    found = dict(facts(report))
    assert (found["limit"], found["counts by"]) == ("none up to 300.0 calls/s", "no limit was met, calls pile up")
    assert report.efficiency is None


def test_failures_are_told() -> None:
    """Why, and how often."""
    found = dict(facts(replace(REPORT, failures={"500: internal error": 3})))
    assert found["failed"] == "3 times: 500: internal error"


def test_a_rate_limit_above_the_gateways_is_what_to_change_first() -> None:
    """The run would be refused."""
    assert sentence(replace(REPORT, granted=300.0)).startswith("`rate_limit` of 300 calls/s is the bottleneck")
    assert sentence(REPORT).startswith("the rate limit is the bottleneck")
    assert sentence(replace(REPORT, diagnosis=None)) == ""


def test_machines_get_everything() -> None:
    """Also what follows from it; it is JSON."""
    found = json.loads(json.dumps(content(REPORT)))
    assert found["limit"] == 110
    assert found["efficiency"] == pytest.approx(0.909, abs=0.001)
    assert found["counting"]["words"].startswith("a sliding window")
    assert found["diagnosis"]["bottleneck"] == "permit"
    assert [step["offered"] for step in found["steps"]] == [100, 400]


@pytest.mark.parametrize("steps", [(), REPORT.steps[:1], REPORT.steps])
def test_the_drawing_is_whole_however_little_there_is(steps: tuple[Step, ...]) -> None:
    """It is XML, with a line for each series."""
    root = ET.fromstring(svg(replace(REPORT, steps=steps)))  # noqa: S314 - our own
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == (5 if steps else 0)
    assert all(len(line.attrib["points"].split()) == len(steps) for line in lines)


def test_text_from_outside_stays_text_in_the_drawing() -> None:
    """Names and addresses stand in it, escaped."""
    drawn = svg(replace(REPORT, dataset="<script>", address="http://127.0.0.1/\x1b]<b>&"))
    assert "<script>" not in drawn
    assert "\x1b" not in drawn
    texts = [element.text or "" for element in ET.fromstring(drawn).iter()]  # noqa: S314 - our own
    assert any("<script>" in text and "<b>&" in text for text in texts)
