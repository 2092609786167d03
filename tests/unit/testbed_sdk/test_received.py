"""What a batch and a history say of what is missing."""

import numpy as np
import pytest

from broker.batch import Batch, Gap, Series, Source, Wide
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_sdk import History, Missed, Received

SPEC = StreamSpec(StreamAddress("o", "e", "s"), (Signal("a"), Signal("b")))
FRAME = Wide(np.array([5], np.int64), {"a": np.array([1.0])})
GAP = Gap(("a",), 1, 4, "server-overflow")


@pytest.mark.parametrize(
    ("gaps", "missed", "after"),
    [
        ((), None, False),
        ((GAP,), None, True),
        ((), Missed("e", 3, 7), True),
        ((GAP,), Missed("e", 3, 7), True),
    ],
)
def test_a_batch_after_a_gap_says_so(
    gaps: tuple[Gap, ...], missed: Missed | None, after: object
) -> None:
    batch = Batch(1, (FRAME,), Source.LIVE, gaps=gaps)
    received = Received(batch, SPEC, 10, missed)
    assert (received.after_gap, received.gaps) == (after, gaps)


def test_what_was_missed_is_counted() -> None:
    assert len(Missed("e", 3, 7)) == 5


def test_a_history_tells_the_gaps_of_one_signal() -> None:
    empty = Series(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))
    whole = Gap((), 7, 9, "gateway-down")
    history = History(SPEC, {"a": empty, "b": empty}, (GAP, whole))
    assert (history.gaps_of("a"), history.gaps_of("b")) == ((GAP, whole), (whole,))
    with pytest.raises(Invalid):
        history.gaps_of("c")


def test_the_text_of_samples_is_one_line_without_their_values() -> None:
    batch = Batch(1, (FRAME,), Source.LIVE)
    assert repr(Received(batch, SPEC, 10)) == (
        "<Received of o/e/s, 1970-01-01T00:00:00.000000005Z to 1970-01-01T00:00:00.000000005Z,"
        " 1 row: a, b>"
    )
    empty = Series(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))
    names = [f"n{number}" for number in range(7)]
    spec = StreamSpec(SPEC.address, tuple(map(Signal, names)))
    history = History(spec, dict.fromkeys(names, empty), ())
    assert str(history) == "<History of o/e/s, 0 rows: n0, n1, n2, n3, n4 and 2 more>"
