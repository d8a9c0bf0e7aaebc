"""The second reading: what is checked, what is mended, and when everything is read again."""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.certificate import CONFIDENCE, share_below
from harvester.second_reading import FULL, SPARE, Check, SecondReading


def play(
    reading: SecondReading,
    changed: Collection[int] = (),
    *,
    empty: Collection[int] = (),
    random: Random | None = None,
    window: int = 8,
    failing: float = 0.0,
) -> list[int]:
    """Answer everything that is asked for; return the pages answered, in order."""
    flying: list[int] = []
    answered: list[int] = []
    while True:
        while len(flying) < window and (page := reading.next()) is not None:
            assert page not in flying
            assert page not in answered, f"page {page} was read twice"
            flying.append(page)
        assert reading.in_flight == len(flying)
        assert reading.exhausted is (not flying)
        if not flying:
            return answered
        page = flying.pop(random.randrange(len(flying)) if random else 0)
        if random and random.random() < failing:
            reading.put_back(page)
            continue
        answered.append(page)
        gone = page in empty or page > reading.last
        reading.arrived(page, same=page not in changed, rows=0 if gone else 20)


def chances(seed: int) -> Random:
    """Return the chances of a test."""
    return Random(seed)  # noqa: S311 - shuffles answers


@pytest.mark.parametrize(
    ("last", "sample", "edge", "pages"),
    [
        (1, 1, False, [1]),
        (1, 700, False, [1]),
        (1, 1, True, [1, 2]),
        (2, 700, True, [1, 2, 3]),
        (9, 1, False, [1]),
        (9, 2, False, [1, 9]),
        (9, 9, False, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (9, 700, True, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
)
def test_page_1_and_the_last_page_are_always_checked(last: int, sample: int, edge: bool, pages: list[int]) -> None:  # noqa: FBT001 - from the table
    """Then as many others as fit the sample, and the page after the last one if asked to."""
    reading = SecondReading(last, sample, seed=1, edge=edge)
    assert sorted(play(reading)) == pages
    assert reading.checked == min(last, sample)
    assert (reading.changed, reading.mended, reading.emptied, reading.abandoned) == (0, 0, set(), False)


def test_a_seed_gives_its_sample_again_and_another_seed_another_one() -> None:
    """So that anybody can tell from the certificate which pages were read."""
    samples = [play(SecondReading(10_000, FULL, seed)) for seed in (5, 5, 6)]
    assert samples[0] == samples[1] != samples[2]
    assert [len(set(sample)) for sample in samples] == [FULL] * 3
    assert all({1, 10_000} < set(sample) for sample in samples)


def test_the_sample_is_spread_evenly() -> None:
    """Each tenth of the list gets its share, over many seeds."""
    tenths = [0] * 10
    for seed in range(30):
        for page in play(SecondReading(10_000, FULL, seed))[2:]:
            tenths[(page - 1) // 1000] += 1
    assert all(1_900 < share < 2_300 for share in tenths), tenths


def test_nothing_changed_nothing_more_is_read() -> None:
    """The check is all there is."""
    reading = SecondReading(1000, 100, seed=3)
    assert len(play(reading)) == reading.checked == 100


@pytest.mark.parametrize("place", range(3))
def test_one_changed_page_has_everything_read(place: int) -> None:
    """What has left it may have come to any other page."""
    check = play(SecondReading(100, 3, seed=3))
    reading = SecondReading(100, 3, seed=3)
    changed = {check[place], 50, 77}
    asked = play(reading, changed)
    assert asked[:3] == check
    assert sorted(asked) == list(range(1, 101))
    assert (reading.checked, reading.changed, reading.mended) == (3, 1, 3)


def test_rows_behind_the_last_page_have_everything_read() -> None:
    """The page after the last one is checked, but no page of the list."""
    reading = SecondReading(100, 2, seed=3, edge=True)
    assert sorted(play(reading, {101})) == list(range(1, 102))
    assert (reading.checked, reading.changed, reading.mended) == (2, 1, 0)


def test_where_all_pages_are_checked_nothing_is_left_to_read() -> None:
    """Changed or not."""
    reading = SecondReading(10, 10, seed=3)
    assert len(play(reading, {2, 4, 8})) == 10
    assert (reading.changed, reading.mended) == (3, 3)


def test_cut_short_nothing_more_is_asked_for() -> None:
    """What was read until then counts, also where a page comes back unanswered."""
    reading = SecondReading(10, 10, seed=3)
    assert reading.next() == 1
    second = reading.next()
    reading.arrived(1, same=True, rows=20)
    reading.cut_short()
    reading.put_back(second or 0)
    assert reading.next() is None
    assert reading.exhausted
    assert (reading.checked, reading.changed) == (1, 0)


def test_pages_without_rows_are_named() -> None:
    """The list has become shorter, or lies now."""
    reading = SecondReading(10, 10, seed=3)
    play(reading, {4, 10}, empty={10})
    assert reading.emptied == {10}


@pytest.mark.parametrize(("most", "more"), [(None, 97), (97, 97), (96, 0), (0, 0)])
def test_mending_that_would_cost_too_much_is_abandoned(most: int | None, more: int) -> None:
    """Nothing more is asked for, and it is said."""
    middle = play(SecondReading(100, 3, seed=3))[2]
    reading = SecondReading(100, 3, seed=3, most=most)
    assert len(play(reading, {middle})) == 3 + more
    assert reading.abandoned is (more == 0)


def test_a_page_given_up_is_not_checked_and_does_not_hold_up_the_rest() -> None:
    """What is mended, is mended when the rest of the check is in."""
    reading = SecondReading(10, 3, seed=3)
    first, second, third = (reading.next() for _ in range(3))
    assert reading.next() is None
    assert (first, second) == (1, 10)
    assert third is not None
    reading.arrived(third, same=False, rows=20)
    reading.arrived(1, same=True, rows=20)
    assert reading.next() is None, "the check is not in yet"
    reading.leave_open(10)
    assert (reading.checked, reading.changed) == (2, 1)
    assert reading.next() == 2, "now everything else"


def test_another_page_is_checked_in_place_of_one_given_up() -> None:
    """So the check is as large as it was to be; but only a few, or the sample would no longer be random."""
    check = play(SecondReading(10_000, FULL, seed=3))
    reading = SecondReading(10_000, FULL, seed=3)
    spares = FULL // SPARE
    lost, asked = set(check[2 : 4 + spares]), []
    while (page := reading.next()) is not None:
        asked.append(page)
        if page in lost:
            reading.leave_open(page)
        else:
            reading.arrived(page, same=True, rows=20)
    assert asked[:FULL] == check
    assert len(set(asked)) == len(asked) == FULL + spares
    assert len(lost) == spares + 2
    assert (reading.checked, reading.unread) == (FULL - 2, 0)
    assert set(reading.missing) < lost
    assert len(reading.missing) == 2


@pytest.mark.parametrize("given_up", [1, 10_000, 10_001])
def test_nothing_stands_for_the_first_and_the_last_page(given_up: int) -> None:
    """They show what no other page does."""
    reading = SecondReading(10_000, FULL, seed=3, edge=True)
    asked = 0
    while (page := reading.next()) is not None:
        asked += 1
        if page == given_up:
            reading.leave_open(page)
        else:
            reading.arrived(page, same=True, rows=20)
    assert asked == FULL + 1
    assert (reading.checked, reading.unread) == ((FULL, 1) if given_up > 10_000 else (FULL - 1, 0))
    assert reading.missing == [given_up]
    assert reading.check is not None
    later = SecondReading(10_000, FULL, seed=3, edge=True, earlier=reading.check)
    assert given_up in play(later)
    assert (later.checked, later.missing) == (FULL, [])
    in_vain = SecondReading(10_000, FULL, seed=3, edge=True, earlier=reading.check)
    while (page := in_vain.next()) is not None:
        in_vain.leave_open(page)
    assert in_vain.missing == [], "it would be the same in every run"


def test_where_everything_is_read_again_a_page_given_up_is_too() -> None:
    """What has left a page that has changed may have come to this one; if it fails again, that is said."""
    reading = SecondReading(6, 6, seed=3)
    assert [reading.next() for _ in range(6)] == [1, 6, 2, 3, 4, 5]
    reading.leave_open(3)
    for page in (1, 2, 4, 6):
        reading.arrived(page, same=True, rows=20)
    reading.arrived(5, same=False, rows=20)
    assert (reading.checked, reading.changed, reading.unread) == (5, 1, 0)
    assert reading.next() == 3
    assert reading.next() is None
    reading.leave_open(3)
    assert reading.unread == 1
    assert reading.missing == [], "it is too late for that"
    assert reading.exhausted


def test_pages_that_would_have_shown_more_and_could_not_be_read_are_counted() -> None:
    """Those that are mended, and the one after the last; of the check itself ``checked`` tells."""
    reading = SecondReading(5, 2, seed=3, edge=True)
    assert [reading.next() for _ in range(3)] == [1, 5, 6]
    reading.leave_open(5)
    assert reading.unread == 0
    reading.leave_open(6)
    assert reading.unread == 1
    reading.arrived(1, same=False, rows=20)
    assert reading.next() == 2
    reading.leave_open(2)
    assert reading.unread == 2
    assert (reading.checked, reading.changed) == (1, 1)


def test_a_page_put_back_is_asked_for_again() -> None:
    """Before any other."""
    reading = SecondReading(10, 10, seed=3)
    pages = [reading.next() for _ in range(3)]
    assert pages[1] is not None
    reading.put_back(pages[1])
    assert reading.in_flight == 2
    assert not reading.exhausted
    assert reading.next() == pages[1]
    assert reading.wanted(5)


def test_whether_it_is_exhausted_can_be_asked_at_any_time() -> None:
    """The page that would be next is not lost by the question."""
    reading = SecondReading(3, 3, seed=3)
    assert not reading.exhausted
    assert sorted(play(reading)) == [1, 2, 3]
    everything = SecondReading(30, 2, seed=3, edge=True)
    for _ in range(3):
        page = everything.next()
        assert page is not None
        everything.arrived(page, same=page < 30, rows=20)
    assert not everything.exhausted
    assert sorted(play(everything)) == list(range(2, 30))


def test_page_1_is_its_witness() -> None:
    """Whatever is read again has a first page."""
    assert SecondReading(10, 10, seed=3).witness == 1


# -- across runs --------------------------------------------------------------------------------------------------


def test_a_check_is_gone_on_with() -> None:
    """What was the same is not read once more, up to the first page that is not in."""
    whole = play(SecondReading(50, 9, seed=3, edge=True))
    reading = SecondReading(50, 9, seed=3, edge=True)
    begun = reading.check
    assert begun is not None
    assert begun.same == 0
    for page in [reading.next() for _ in range(5)]:
        if page not in {None, whole[3]}:
            reading.arrived(page or 0, same=True, rows=20)
    assert reading.check == Check(seed=3, pages=begun.pages, same=3)
    later = SecondReading(50, 9, seed=3, edge=True, earlier=reading.check)
    assert later.checked == 3
    assert later.check == reading.check
    assert play(later) == whole[3:]
    assert (later.checked, later.changed) == (9, 0)
    assert later.check is None, "nothing is left of it"


def test_what_an_earlier_run_has_read_is_read_again_once_something_has_changed() -> None:
    """It may have changed since."""
    whole = play(SecondReading(50, 9, seed=3, edge=True))
    reading = SecondReading(50, 9, seed=3, edge=True)
    for page in [reading.next() for _ in range(4)]:
        reading.arrived(page or 0, same=True, rows=20)
    later = SecondReading(50, 9, seed=3, edge=True, most=45, earlier=reading.check)
    asked = play(later, {*whole[2:4], whole[6]})
    assert asked[:6] == whole[4:]
    assert sorted(asked) == list(range(1, 52))
    assert (later.checked, later.changed, later.mended) == (9, 1, 3)
    tight = SecondReading(50, 9, seed=3, edge=True, most=44, earlier=reading.check)
    assert len(play(tight, {whole[6]})) == 6
    assert tight.abandoned


@pytest.mark.parametrize(
    ("last", "sample", "seed", "edge"), [(51, 9, 3, True), (50, 8, 3, True), (50, 9, 4, True), (50, 9, 3, False)]
)
def test_a_check_of_other_pages_begins_anew(last: int, sample: int, seed: int, edge: bool) -> None:  # noqa: FBT001 - from the table
    """However far the other one had come."""
    reading = SecondReading(50, 9, seed=3, edge=True)
    reading.arrived(reading.next() or 0, same=True, rows=20)
    assert reading.check is not None
    assert reading.check.same == 1
    later = SecondReading(last, sample, seed, edge=edge, earlier=reading.check)
    assert len(play(later)) == sample + edge
    assert later.checked == sample


def test_a_check_that_cannot_be_gone_on_with() -> None:
    """One that has found a change, and one that was cut short because it has to do as it is."""
    changed, cut = SecondReading(50, 9, seed=3), SecondReading(50, 9, seed=3)
    for reading in (changed, cut):
        reading.arrived(reading.next() or 0, same=reading is cut, rows=20)
    cut.leave_open(cut.next() or 0)
    assert cut.missing == [50]
    cut.cut_short()
    assert changed.check is cut.check is None
    assert cut.missing == []


@settings(max_examples=100, deadline=None)
@given(
    last=st.integers(1, 300),
    sample=st.integers(1, 350),
    stops=st.lists(st.integers(0, 100), max_size=6),
    options=st.fixed_dictionaries({"seed": st.integers(0, 9), "edge": st.booleans()}),
    chance=st.integers(0, 9),
)
def test_runs_that_are_stopped_check_what_one_does(
    last: int, sample: int, stops: list[int], options: dict[str, Any], chance: int
) -> None:
    """Pages get lost, answers come in any order: in the end each page of the check was read, and was the same."""
    random, same = chances(chance), set[int]()
    whole = SecondReading(last, sample, **options)
    check = play(whole)
    earlier: Check | None = None
    for stop in stops:
        reading = SecondReading(last, sample, **options, earlier=earlier)
        flying = [page for page in (reading.next() for _ in range(stop)) if page is not None]
        random.shuffle(flying)
        for page in flying[stop // 8 :]:
            reading.arrived(page, same=True, rows=20)
            same.add(page)
        earlier = reading.check
    reading = SecondReading(last, sample, **options, earlier=earlier)
    assert same | set(play(reading)) == set(check)
    assert reading.checked == whole.checked


@settings(max_examples=150, deadline=None)
@given(
    last=st.integers(1, 120),
    sample=st.integers(1, 150),
    changed=st.sets(st.integers(1, 121), max_size=12),
    seed=st.integers(0, 2**32 - 1),
    options=st.fixed_dictionaries({"edge": st.booleans(), "most": st.none() | st.integers(0, 150)}),
    failing=st.sampled_from([0.0, 0.3]),
    window=st.integers(1, 30),
)
def test_what_is_true_of_every_round(
    last: int, sample: int, changed: set[int], seed: int, options: dict[str, Any], failing: float, window: int
) -> None:
    """No page twice, none outside the list, counts that add up, and the same pages whatever the order of answers."""
    reading = SecondReading(last, sample, seed, **options)
    answered = play(reading, changed, random=chances(seed), window=window, failing=failing)
    pages = set(answered)
    assert pages <= set(range(1, last + 1 + options["edge"]))
    check = set(play(SecondReading(last, sample, seed, edge=options["edge"])))
    assert check <= pages
    assert reading.checked == min(sample, last)
    assert reading.changed == len(check & changed)
    assert reading.mended == len(pages & changed - {last + 1})
    if options["most"] is not None:
        assert len(pages - check) <= options["most"]
    elif not reading.abandoned:
        for page in pages & changed:  # around whatever has changed everything is known
            assert {page - 1, page + 1} & set(range(1, last + 1)) <= pages
    in_order = SecondReading(last, sample, seed, **options)
    assert set(play(in_order, changed, window=1)) == pages


def test_a_full_sample_misses_one_percent_about_once_in_a_thousand_times() -> None:
    """The bound that the certificate states, and a check by drawing."""
    assert share_below(FULL, 10_000) == pytest.approx(0.00656, abs=1e-5)
    assert (1 - 0.01) ** (FULL - 2) < 1 / 1100
    assert share_below(10, 10) == 0.0
    assert share_below(0, 10) == 1.0
    assert CONFIDENCE == 0.99
    missed = 0
    for seed in range(100):
        changed = set(chances(seed).sample(range(1, 10_001), 100))
        missed += not changed & set(play(SecondReading(10_000, FULL, seed), window=1000))
    assert missed <= 1
