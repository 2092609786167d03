import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline.source_clock import StalledSignals

SIGNALS = 3
notes = st.tuples(
    st.integers(0, SIGNALS - 1), st.integers(0, 3), st.integers(0, 3), st.integers(0, 20)
)
instants = st.lists(st.integers(0, 3), min_size=SIGNALS, max_size=SIGNALS)


@given(st.lists(notes, max_size=10), instants, instants, st.integers(0, 10))
def test_a_signal_is_stalled_exactly_if_it_is_among_the_stalled(
    noted: list[tuple[int, int, int, int]], newest: list[int], arrived: list[int], least: int
) -> None:
    stalled = StalledSignals(SIGNALS)
    for signal, before, after, since in noted:
        stalled.note(
            np.array([signal], np.int32), np.array([before]), np.array([after]), np.array([since])
        )
    newest_ns, arrived_ns = np.array(newest), np.array(arrived) * 10
    among = stalled.stalled(newest_ns, arrived_ns, least)
    alone = [
        signal
        for signal in range(SIGNALS)
        if stalled.is_stalled(signal, newest[signal], arrived[signal] * 10, least)
    ]
    assert alone == among.tolist()
