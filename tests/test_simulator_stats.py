"""What the simulator counts."""

from __future__ import annotations

from collections import Counter

from harvester.simulator.stats import MAX_SECONDS, AppStats, Peak, Stats


def test_peak_is_the_fullest_half_open_second() -> None:
    """Events exactly one second apart are not counted together."""
    peak = Peak()
    for now in (0.0, 0.5, 0.75, 1.0, 1.25, 5.0):
        peak.add(now)
    assert peak.most == 4  # 0.5, 0.75, 1.0, 1.25; at 1.0 the event at 0.0 has left


def test_totals_add_up_over_apps() -> None:
    """The totals are sums over the apps; the oldest signature is the greatest."""
    stats = Stats()
    one, two = stats.app("wuhan/a"), stats.app("sipop/b")
    for app, now in ((one, 0.0), (one, 0.25), (two, 0.5)):
        app.arrive(now)
    one.accept(0.0)
    one.refuse("1141", 0.25)
    two.refuse("1008", 0.5)
    one.sign(0.5)
    two.sign(2.25)
    one.repeated_nonces += 1
    assert (stats.calls, stats.accepted, stats.repeated_nonces, stats.oldest_signature) == (3, 1, 1, 2.25)
    assert stats.refused == Counter({"1141": 1, "1008": 1})
    assert (one.most_calls, one.most_accepted, two.most_calls, two.most_accepted) == (2, 1, 1, 0)


def test_pages_are_counted_one_by_one_up_to_a_bound() -> None:
    """Beyond the bound new pages go to one number; known ones go on being counted."""
    stats = Stats(max_pages=2)
    for page in (1, 2, 3, 1, 4):
        stats.page("wuhan/companies", page, 4)
    assert stats.pages == {"wuhan/companies": {1: 2, 2: 1}}
    assert stats.pages_not_listed == 2
    assert (stats.dataset_calls, stats.beyond) == ({"wuhan/companies": 5}, {})


def test_calls_behind_the_last_page_are_counted() -> None:
    """By dataset; the first page of an empty dataset is not behind it."""
    stats = Stats()
    for page, last in ((3, 3), (4, 3), (9, 3), (9, 9)):
        stats.page("wuhan/companies", page, last)
    for page in (1, 2):
        stats.page("sipop/patent.legal", page, 0)
    assert stats.beyond == {"wuhan/companies": 2, "sipop/patent.legal": 1}
    assert stats.as_dict()["beyond"] == stats.beyond
    assert stats.as_dict()["dataset_calls"] == {"wuhan/companies": 4, "sipop/patent.legal": 2}


def test_clear_zeroes_in_place() -> None:
    """Who holds the counts of an app goes on counting in the same ones."""
    stats = Stats(max_pages=1)
    app = stats.app("wuhan/a")
    app.arrive(0.0)
    app.accept(0.0)
    app.refuse("500", 0.0)
    app.sign(3.0)
    app.repeated_nonces = 1
    stats.page("wuhan/companies", 1, 1)
    stats.page("wuhan/companies", 2, 1)
    stats.proxy_errors = 1
    stats.faults["reset"] += 1
    fresh = Stats(max_pages=1)
    fresh.app("wuhan/a")
    stats.clear()
    assert stats.as_dict() == fresh.as_dict()
    stats.page("wuhan/companies", 7, 9)
    app.refuse("500", 0.0)
    assert (stats.pages, stats.refused) == ({"wuhan/companies": {7: 1}}, Counter({"500": 1}))


def test_seconds_are_counted_from_the_first_call() -> None:
    """Calls, accepted and refused ones of every second with calls; a reset leaves where they are counted from."""
    app = AppStats()
    app.accept(100.75)
    app.refuse("1141", 101.5)
    app.accept(101.75)
    app.accept(110.0)
    assert app.per_second == [[0, 2, 1, 1], [1, 1, 1, 0], [9, 1, 1, 0]]
    app.clear()
    assert app.per_second == []
    app.refuse("500", 111.0)
    assert app.per_second == [[10, 1, 0, 1]]


def test_seconds_are_kept_for_an_hour() -> None:
    """Beyond, the oldest go."""
    app = AppStats()
    for second in range(MAX_SECONDS + 2):
        app.accept(float(second))
    assert (len(app.per_second), app.per_second[0][0], app.calls) == (3_600, 2, 3_602)
