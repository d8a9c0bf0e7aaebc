"""States of pages: one byte a page near by, a table for what probes touch far away, and no difference to be seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.page_states import ASKED, BEYOND, DONE, OPEN, UNASKED, PageStates

STATES = (ASKED, DONE, BEYOND, OPEN)
FAR = 5_000_000


def test_every_page_begins_unasked() -> None:
    """Near by and far away; page 0 does not exist and counts as done."""
    states = PageStates()
    assert {states[page] for page in (1, 2, 1023, 1024, FAR)} == {UNASKED}
    assert states[0] == DONE


@pytest.mark.parametrize("page", [1, 1023, 1024, 2047, 2048, 2049, FAR])
def test_a_state_is_what_was_set_last(page: int) -> None:
    """Wherever the page lies, and its neighbours stay as they were."""
    states = PageStates()
    for state in (*STATES, UNASKED):
        states[page] = state
        assert states[page] == state
        assert states[page - 1] == states[page + 1] == UNASKED or page == 1


def test_what_lies_far_stays_what_it_is_when_the_table_reaches_it() -> None:
    """Growing moves nothing and loses nothing."""
    states = PageStates()
    states[3000], states[9000] = BEYOND, ASKED
    for page in range(1, 10_001):
        if page not in {3000, 9000}:
            states[page] = DONE
    assert states[3000] == BEYOND
    assert states[9000] == ASKED
    assert states.count(DONE, 1, 10_000) == 9_998


def test_filling_sets_a_whole_stretch_and_nothing_else() -> None:
    """Both ends included."""
    states = PageStates()
    states.fill(10, 5000, DONE)
    states.fill(6000, 6000, OPEN)
    assert [states[page] for page in (9, 10, 5000, 5001, 5999, 6000, 6001)] == [
        UNASKED, DONE, DONE, UNASKED, UNASKED, OPEN, UNASKED,
    ]  # fmt: skip


def test_a_single_page_far_away_is_no_stretch() -> None:
    """A probe that an earlier run has kept costs an entry."""
    states = PageStates()
    states.fill(FAR, FAR, DONE)
    assert states[FAR] == DONE
    assert len(states._near) < 10_000


def test_finding_the_first_page_in_a_state() -> None:
    """Within the bounds, both included; 0 if there is none."""
    states = PageStates()
    states.fill(1, 50, DONE)
    states[7], states[FAR], states[FAR + 5] = ASKED, ASKED, BEYOND
    assert states.find(ASKED, 1, FAR) == 7
    assert states.find(ASKED, 7, 7) == 7
    assert states.find(ASKED, 8, FAR) == FAR
    assert states.find(ASKED, 8, FAR - 1) == 0
    assert states.find(ASKED, FAR + 1, FAR + 9) == 0
    assert states.find(BEYOND, 1, FAR + 5) == FAR + 5
    assert states.find(UNASKED, 1, 50) == 0
    assert states.find(UNASKED, 1, 51) == 51
    assert states.find(UNASKED, FAR, FAR + 5) == FAR + 1
    assert states.find(UNASKED, FAR, FAR) == 0


def test_all_pages_in_a_state_in_order() -> None:
    """Near ones first, then the far ones, sorted."""
    states = PageStates()
    for page in (FAR + 1, 3, FAR, 1):
        states[page] = OPEN
    states[2] = DONE
    assert list(states.all(OPEN)) == [1, 3, FAR, FAR + 1]
    assert list(states.all(BEYOND)) == []


def test_memory_follows_what_is_asked_for_in_sequence_not_what_probes_touch() -> None:
    """Probes that double their distance for ever cost an entry each; a million pages in a row cost a byte each."""
    probed = PageStates()
    for times in range(24):
        for page in (2**times, 3 * 2**times, 2**times + 1):
            probed[page] = DONE
    assert len(probed._near) <= 8192
    walked = PageStates()
    for page in range(1, 1_000_001):
        walked[page] = DONE
    assert len(walked._near) <= 2 * 1_000_000 + 2048
    assert not walked._far


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(1, 40), st.integers(1000, 5000), st.integers(10**6, 10**6 + 50)),
            st.sampled_from((UNASKED, *STATES)),
            st.integers(0, 30),
        ),
        max_size=60,
    ),
    st.sampled_from((UNASKED, *STATES)),
    st.integers(1, 6000),
    st.integers(0, 8000),
)
def test_it_is_a_dictionary(changes: list[tuple[int, int, int]], state: int, first: int, length: int) -> None:
    """Whatever is set, alone or as a stretch, is found, counted and listed as a plain dictionary would."""
    states, plain = PageStates(), dict[int, int]()
    for page, new, more in changes:
        if more and new != UNASKED and page < 10**6:
            states.fill(page, page + more, new)
            plain.update(dict.fromkeys(range(page, page + more + 1), new))
        else:
            states[page] = plain[page] = new
    last = first + length
    inside = [page for page in range(first, last + 1) if plain.get(page, UNASKED) == state]
    assert states.find(state, first, last) == (inside[0] if inside else 0)
    if state != UNASKED:
        assert states.count(state, first, last) == len(inside)
        assert list(states.all(state)) == sorted(page for page, known in plain.items() if known == state)


def test_taking_many_at_once() -> None:
    """All that were never asked for are under way, those that are here are told; anything else, and nothing changes."""
    states = PageStates()
    states[12], states[3000] = DONE, DONE
    assert states.take(11, 20) == [12]
    assert [states[page] for page in (10, 11, 12, 20, 21)] == [UNASKED, ASKED, DONE, ASKED, UNASKED]
    assert states.take(20, 29) is None
    assert states[21] == UNASKED
    assert states.take(2991, 3010) == [3000]
    states[41] = states[42] = DONE
    assert states.take(41, 44) is None
