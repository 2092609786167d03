"""Samples in doubt get free time stamps, the next ones, and none of another sample."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker.batch import GOOD, Series
from testbed_api.recorder.free_times import FreeTimes

times = st.lists(st.integers(0, 40), max_size=30)


def series(rows: dict[int, float]) -> Series:
    stamps = sorted(rows)
    values = np.array([rows[ns] for ns in stamps], np.float64)
    return Series(np.array(stamps, np.int64), values, np.full(len(stamps), GOOD, np.uint8))


def placed(
    own: list[tuple[int, float]],
    may_be_stored: list[bool],
    others: list[int],
    store: dict[int, float],
) -> list[int | None]:
    """The choice for some samples, with what a store answers."""
    samples = Series(
        np.array([ns for ns, _ in own], np.int64),
        np.array([value for _, value in own], np.float64),
        np.full(len(own), GOOD, np.uint8),
    )
    choice = FreeTimes(
        samples,
        may_be_stored=np.array(may_be_stored, np.bool_),
        others=np.array(others, np.int64),
    )
    while not choice.is_done:
        wanted = choice.wanted().tolist()
        choice.take(series({ns: store[ns] for ns in wanted if ns in store}))
    return choice.placed


@given(times.filter(bool), times, times)
def test_each_sample_gets_the_next_free_time(
    own: list[int], others: list[int], stored: list[int]
) -> None:
    store = {ns: float(ns) for ns in stored}
    result = placed([(ns, -1.0) for ns in own], [False] * len(own), others, store)
    used = {*others, *store}
    assert len({*result}) == len(result)
    assert not used & {*result}
    assert all(
        set(range(own_ns, placed_ns or 0)) <= {*used, *result}
        for own_ns, placed_ns in zip(own, result, strict=True)
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=12), times)
def test_a_batch_whose_samples_may_be_stored_is_stored_once(
    own: list[tuple[int, int]], others: list[int]
) -> None:
    """Sent again after it was stored, none of it is new."""
    rows = [(ns, float(value)) for ns, value in own]
    before = dict.fromkeys(others, -1.0)
    first = placed(rows, [True] * len(rows), [], before)
    store = before | {
        ns: value for ns, (_, value) in zip(first, rows, strict=True) if ns is not None
    }
    assert placed(rows, [True] * len(rows), [], store) == [None] * len(rows)
