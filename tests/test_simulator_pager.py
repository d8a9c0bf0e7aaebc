"""Pages of a dataset with quirks: which rows they give, and what they say of themselves."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.simulator.pager import BLOCKED, Manner, Pager, Served, current_rows, pagers
from harvester.simulator.quirks import Change, Quirks
from harvester.simulator.stats import AppStats, Stats
from harvester.simulator.tables import StoredTable

SIZE: Final = 4


class Reader:
    """Asks a pager for pages and keeps what the answers say; rows are single letters."""

    def __init__(
        self,
        rows: int = 10,
        *,
        states: bool = True,
        has_nothing: bool = True,
        own_total: str = "right",
        **quirks: Any,  # noqa: ANN401 - as Quirks has them
    ) -> None:
        table = StoredTable((b'"%c"' % (97 + number) for number in range(rows)), ())
        self.stats = Stats()
        self.counts = AppStats()
        self.served: list[Served] = []
        manner = Manner(SIZE, own_total, states, has_nothing, self._render, lambda code: f"failure {code}".encode())
        self.pager = Pager("p/d", table, Quirks(**quirks), manner, self.stats)

    def _render(self, served: Served) -> bytes:
        self.served.append(served)
        return b"page"

    def ask(self, number: int, size: int | None = None) -> str:
        """Return the letters of a page, the code of a failure, or in angle brackets what stands in their place."""
        body = self.pager.answer({}, number, size, self.counts, 0.0).body
        if body != b"page":
            return body.decode()
        served = self.served[-1]
        if served.nothing:
            return "<nothing>"
        if served.data is None or served.data == b"null":
            return f"<{served.data!r}>"
        assert served.rows == (served.data.count(b",") + 1 if served.data != b"[]" else 0)
        return served.data.decode().translate(dict.fromkeys(map(ord, '[]",')))

    def ask_all(self, *numbers: int) -> list[str]:
        """Return several pages."""
        return [self.ask(number) for number in numbers]

    def kept(self, size: int | None = None) -> str:
        """Return the letters of the current rows."""
        return "".join(row.decode().strip('"') for row in self.pager.rows(size))


@pytest.mark.parametrize(
    ("quirks", "third", "beyond"),
    [
        ({}, "ij", ["", ""]),
        ({"past_end": "null"}, "ij", ["<b'null'>", "<b'null'>"]),
        ({"past_end": "absent"}, "ij", ["<None>", "<None>"]),
        ({"past_end": "code"}, "ij", ["<nothing>", "<nothing>"]),
        ({"past_end": "last"}, "ij", ["ij", "ij"]),
        ({"past_end": "first"}, "ij", ["abcd", "abcd"]),
        ({"past_end": "error"}, "ij", ["failure 7001", "failure 7001"]),
        ({"past_end": "error", "past_end_code": "500"}, "ij", ["failure 500", "failure 500"]),
        ({"past_end": "last", "window": 9}, "i", ["i", "i"]),
        ({"past_end": "error", "window": 7}, "failure 7001", ["failure 7001"] * 2),
        ({"window": 8}, "", ["", ""]),
        ({"window": 80}, "ij", ["", ""]),
    ],
)
def test_pages_past_the_end(quirks: dict[str, Any], third: str, beyond: list[str]) -> None:
    """Every way that pagers have, also where a window ends the list early; the total tells nothing of a window."""
    reader = Reader(**quirks)
    assert reader.ask_all(3, 4, 99) == [third, *beyond]
    assert {served.total for served in reader.served} <= {b"10", b"0"}
    assert {served.total for served in reader.served if not served.nothing} <= {b"10"}
    assert reader.kept() == "abcdefghij"[: quirks.get("window", 10) or 10]


@pytest.mark.parametrize("past_end", ["empty", "last", "first", "error", "null", "absent", "code"])
def test_an_empty_dataset_has_no_page_to_repeat(past_end: str) -> None:
    """Nothing was found, and page 1 is no failure; only the second is past the end."""
    reader = Reader(0, past_end=past_end)
    assert reader.ask_all(1, 2) == ["<nothing>", "failure 7001" if past_end == "error" else "<nothing>"]
    assert (reader.kept(), reader.stats.beyond) == ("", {"p/d": 1})
    coded = Reader(0, has_nothing=False, past_end=past_end)
    coded.ask_all(1, 2)
    assert [served.number for served in coded.served] == [1, 2][: len(coded.served)]


@pytest.mark.parametrize(
    ("echo", "numbers"), [("served", [2, 3]), ("asked", [2, 9]), ("absent", [None, None]), ("wrong", [1, 1])]
)
def test_echo_of_the_page(echo: str, numbers: list[int | None]) -> None:
    """Of the page that is given, of the page that was asked for, none, or a wrong one."""
    reader = Reader(echo=echo, past_end="last")
    assert reader.ask_all(2, 9) == ["efgh", "ij"]
    assert [served.number for served in reader.served] == numbers


@pytest.mark.parametrize(
    ("quirks", "asked", "rows", "stated"),
    [
        ({}, 3, 3, 3),
        ({}, 500, 10, 500),
        ({"size": "clamped", "size_cap": 5}, 9, 5, 5),
        ({"size": "clamped", "size_cap": 5}, 3, 3, 3),
        ({"size": "clamped-silent", "size_cap": 5}, 9, 5, 9),
        ({"size": "ignored"}, 9, 4, 4),
        ({"size": "ignored", "default_size": 6}, 9, 6, 6),
        ({"size": "clamped", "size_cap": 3}, None, 4, 4),
        ({"default_size": 6}, None, 6, 6),
        ({"size": "clamped", "size_cap": 5, "size_echo": False}, 9, 5, None),
    ],
)
def test_page_size(quirks: dict[str, Any], asked: int | None, rows: int, stated: int | None) -> None:
    """Honoured, lowered or ignored, said or not; where none can be asked for it is the default one."""
    reader = Reader(**quirks)
    assert reader.ask(1, asked) == "abcdefghij"[:rows]
    assert (reader.served[0].size, reader.kept(asked)) == (stated, "abcdefghij")


def test_a_platform_that_is_silent_speaks_where_size_or_number_are_wrong() -> None:
    """Otherwise it tells neither."""
    for quirks, said in (
        ({"past_end": "last"}, (None, None)),
        ({"size": "clamped"}, (1, 4)),
        ({"size_changes": ((9, 2),)}, (1, 4)),
        ({"echo": "absent"}, (None, 4)),
        ({"echo": "absent", "size_echo": False}, (None, None)),
    ):
        reader = Reader(states=False, **quirks)
        reader.ask(1)
        assert (reader.served[0].number, reader.served[0].size) == said


def test_current_rows_are_cut_as_asked() -> None:
    """By the size given, or else the one asked for last, or else the default one."""
    reader = Reader(short_pages={1: 1})
    assert reader.kept() == "aefghij"
    assert reader.ask(1, 3) == "a"
    assert (reader.kept(), reader.kept(5)) == ("adefghij", "afghij")


def test_size_changes_in_mid_run() -> None:
    """From the call named on, whatever was asked for."""
    reader = Reader(size_changes=((3, 2), (4, 5)), size="clamped", size_cap=3)
    assert [reader.ask(2, 3) for _ in range(5)] == ["def", "def", "cd", "fghij", "fghij"]
    assert [served.size for served in reader.served] == [3, 3, 2, 5, 5]


def test_short_empty_and_lost_pages() -> None:
    """Rows are hidden, not moved; the current rows know what is lost, not what is empty for once."""
    reader = Reader(short_pages={1: 3}, empty_once=(2,), lose_after=((5, 3),))
    assert reader.kept() == "abcefghij"
    assert reader.ask_all(1, 2, 3, 2) == ["abc", "", "ij", "efgh"]
    assert reader.kept() == "abcefgh"
    assert reader.ask_all(3, 2, 1) == ["", "efgh", "abc"]
    assert Reader(short_pages=((2, 9),)).ask_all(1, 2, 3) == ["abcd", "efgh", "ij"]
    assert Reader(short_pages=((2, 0),), past_end="null").ask_all(1, 2, 3) == ["abcd", "<b'null'>", "ij"]
    assert Reader(short_pages=((2, 0),), past_end="code").ask_all(1, 2, 3) == ["abcd", "<nothing>", "ij"]
    assert Reader(short_pages=((2, 0),), past_end="last").ask_all(1, 2, 3) == ["abcd", "", "ij"]


def test_pages_that_give_the_rows_of_others() -> None:
    """Under their own number; beyond the end there are none to give."""
    swapped = Reader(swap=((1, 3),))
    assert swapped.ask_all(1, 2, 3) == ["ij", "efgh", "abcd"]
    assert [served.number for served in swapped.served] == [1, 2, 3]
    assert swapped.kept() == "ijefghabcd"
    repeated = Reader(repeat=((2, 1), (3, 9)))
    assert repeated.ask_all(1, 2, 3) == ["abcd", "abcd", ""]
    assert repeated.kept() == "abcdabcd"


def test_pages_that_fail() -> None:
    """Always, and also where they come in place of a page past the end; counted as calls and under their code."""
    reader = Reader(errors=((3, "7001"), (2, "500")), past_end="last")
    assert reader.ask_all(1, 2, 2, 3, 7) == ["abcd", "failure 500", "failure 500", "failure 7001", "failure 7001"]
    assert (reader.counts.accepted, reader.counts.refused) == (1, {"500": 2, "7001": 2})
    assert reader.stats.pages == {"p/d": {1: 1, 2: 2, 3: 1, 7: 1}}
    assert (reader.stats.dataset_calls, reader.stats.beyond) == ({"p/d": 5}, {"p/d": 1})
    assert reader.kept() == "abcd"


@pytest.mark.parametrize(
    ("total", "stated"),
    [
        ("", [b"10", b"10", b"10"]),
        ("right", [b"10", b"10", b"10"]),
        ("string", [b'"10"', b'"10"', b'"10"']),
        ("wrong:7", [b"7", b"7", b"7"]),
        ("growing", [b"10", b"11", b"12"]),
        ("shrinking", [b"10", b"9", b"8"]),
        ("capped:7", [b"7", b"7", b"7"]),
        ("capped:70", [b"10", b"10", b"10"]),
        ("absent", [None, None, None]),
        ("null", [b"null", b"null", b"null"]),
    ],
)
def test_total(total: str, stated: list[bytes | None]) -> None:
    """In every way that portals have of stating one."""
    reader = Reader(total=total, window=5)
    reader.ask_all(1, 2, 3)
    assert [served.total for served in reader.served] == stated


def test_total_that_moves_is_off_by_what_the_seed_says() -> None:
    """Never by much, never the same all the time, and never below zero."""
    series = []
    for _ in range(2):
        reader = Reader(total="moving")
        reader.ask_all(*[1] * 30)
        series.append([int(served.total or b"-1") for served in reader.served])
    assert series[0] == series[1]
    assert len(set(series[0])) > 3
    assert all(5 <= total <= 15 for total in series[0])
    few = Reader(1, total="shrinking")
    few.ask_all(1, 1, 1)
    assert [served.total for served in few.served] == [b"1", b"0", b"0"]


def test_total_is_the_platforms_own_unless_set() -> None:
    """Which may be none; an answer of nothing found states none of the other rows."""
    silent = Reader(own_total="absent")
    silent.ask(1)
    assert silent.served[0].total is None
    nothing = Reader(past_end="code", total="string")
    nothing.ask_all(1, 9)
    assert [served.total for served in nothing.served] == [b'"10"', b'"0"']


def test_a_platform_without_a_code_for_nothing_sends_an_empty_list() -> None:
    """With the total of the others."""
    reader = Reader(has_nothing=False, past_end="code")
    assert reader.ask_all(3, 4) == ["ij", ""]
    assert [served.total for served in reader.served] == [b"10", b"10"]
    assert Reader(0, has_nothing=False).ask(1) == ""


def test_rows_change_after_a_number_of_calls() -> None:
    """The call after sees them; so do the current rows, at once; pages are cut from what there is at each call."""
    reader = Reader(changes=(Change(2, "delete", "head", 3), Change(4, "delete", "tail", 5)))
    assert reader.kept() == "abcdefghij"
    assert reader.ask_all(1, 1) == ["abcd", "abcd"]
    assert reader.kept() == "defghij"
    assert reader.ask_all(1, 2) == ["defg", "hij"]
    assert reader.kept() == "de"
    assert reader.ask_all(1, 2) == ["de", ""]
    assert [served.total for served in reader.served] == [b"10", b"10", b"7", b"7", b"2", b"2"]
    assert reader.stats.beyond == {"p/d": 1}


@pytest.mark.parametrize(("body", "kept"), [("invalid", "abcdefghijklmnopuvwxy"), ("html", "")])
def test_what_nobody_can_read_is_in_no_mirror(body: str, kept: str) -> None:
    """Every fifth page, or all of them; a challenge page is no success."""
    reader = Reader(25, body=body)
    assert reader.kept() == kept
    reader.pager.answer({}, 5, None, reader.counts, 0.0)
    assert reader.counts.refused == ({BLOCKED: 1} if body == "html" else {})
    assert reader.stats.pages == {"p/d": {5: 1}}


def test_null_rows_stand_at_fixed_places() -> None:
    """Every seventh of the list, not of the page."""
    reader = Reader(20, body="nulls")
    assert reader.ask_all(1, 2, 3, 4) == ["abcd", "efnullh", "ijkl", "mnullop"]
    assert [index for index, row in enumerate(reader.pager.rows()) if row == b"null"] == [6, 13]


@given(
    st.integers(0, 12),
    st.fixed_dictionaries(
        {},
        optional={
            "past_end": st.sampled_from(["empty", "null", "absent", "code", "error"]),
            "window": st.integers(0, 14),
            "default_size": st.integers(0, 5),
            "short_pages": st.dictionaries(st.integers(1, 4), st.integers(0, 4)),
            "swap": st.just(((1, 2),)),
            "repeat": st.just(((3, 1),)),
            "errors": st.just(((4, "500"),)),
            "lose_after": st.just(((1, 2),)),
            "total": st.sampled_from(["", "growing", "absent"]),
        },
    ),
)
def test_current_rows_are_what_a_walk_brings(rows: int, quirks: dict[str, Any]) -> None:
    """Whatever the quirks, as long as nothing changes on the way."""
    reader = Reader(rows, **quirks)
    kept = reader.kept()
    pages = reader.ask_all(*range(1, 14))
    assert "".join(page for page in pages if "<" not in page and "failure" not in page) == kept


def test_only_datasets_with_quirks_have_a_pager() -> None:
    """Their own or those of all; no quirk is none."""
    tables = {name: StoredTable([b'{"a" : 1}'], ("a",)) for name in ("one", "two")}
    manner = Manner(SIZE, "right", states=True, has_nothing=True, render=lambda _: b"", failure=str.encode)
    for quirks, names in (
        ({}, set()),
        ({"": Quirks()}, set()),
        ({"": Quirks(window=1)}, {"one", "two"}),
        ({"": Quirks(window=1), "two": Quirks()}, {"one"}),
        ({"two": Quirks(window=1)}, {"two"}),
    ):
        made = pagers("p", tables, quirks, manner, Stats(), 0)
        assert set(made) == names
        assert current_rows(tables["one"], made.get("one"), None) == [b'{"a":1}']
