"""Windows as people write them, where they begin, and which values they have."""

import pytest

from broker.aggregation import EARLIEST_NS, LEAST_NS, MOST_NS, Aggregate, Aggregation, width_ns
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec

SPEC = StreamSpec(
    StreamAddress("factory", "pump-rig", "rig"),
    (
        Signal("Pressure", unit="bar", low=0, high=10),
        Signal("strokes", Dtype.INT64),
        Signal("running", Dtype.BOOL),
        Signal("recipe", Dtype.STRING),
    ),
)


@pytest.mark.parametrize(
    ("text", "size_ns"),
    [
        ("1ms", 1_000_000),
        ("250ms", 250_000_000),
        ("1s", 1_000_000_000),
        ("15min", 900_000_000_000),
        ("6h", 21_600_000_000_000),
        ("1d", 86_400_000_000_000),
        ("366d", MOST_NS),
    ],
)
def test_a_width_is_read_and_written(text: str, size_ns: int) -> None:
    assert width_ns(text) == size_ns
    assert Aggregation(size_ns).every == text


def test_a_minute_has_two_units_and_is_written_as_min() -> None:
    assert Aggregation(width_ns("15m")).every == "15min"


@pytest.mark.parametrize(
    "text",
    ["", "1", "s", "1 s", "-1s", "1.5s", "1M", "1w", "1s1ms", "\u0663s", "1s\n", "1" * 13 + "s"],
)
def test_what_is_no_width_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(Invalid, match="such as 1s or 15min"):
        width_ns(text)


@pytest.mark.parametrize("text", ["0s", "367d", "999999999999d"])
def test_a_width_is_between_a_millisecond_and_a_year(text: str) -> None:
    with pytest.raises(Invalid, match="from 1ms to 366d"):
        width_ns(text)
    for size_ns in (LEAST_NS - 1, MOST_NS + 1):
        with pytest.raises(Invalid, match="from 1ms to 366d"):
            Aggregation(size_ns)


def test_nothing_asked_for_is_no_aggregation_and_every_alone_is_a_mean() -> None:
    assert Aggregation.parse(None, None) is None
    assert Aggregation.parse("1s", None) == Aggregation(10**9, Aggregate.MEAN)
    assert Aggregation.parse("1s", "last") == Aggregation(10**9, Aggregate.LAST)
    with pytest.raises(Invalid, match="every=1s"):
        Aggregation.parse(None, "mean")
    with pytest.raises(Invalid, match="one of mean, last, min, max"):
        Aggregation.parse("1s", "median")


@pytest.mark.parametrize(
    ("time_ns", "begin_ns"), [(0, 0), (999_999, 0), (1_000_000, 1_000_000), (-1, -1_000_000)]
)
def test_a_window_begins_at_a_multiple_of_its_width(time_ns: int, begin_ns: int) -> None:
    assert Aggregation(1_000_000).begin_ns(time_ns) == begin_ns


def test_a_mean_of_whole_numbers_is_a_float_and_everything_else_stays() -> None:
    mean, last = Aggregation(10**9, Aggregate.MEAN), Aggregation(10**9, Aggregate.LAST)
    floats = (Dtype.FLOAT64, Dtype.FLOAT64, Dtype.BOOL, Dtype.STRING)
    assert mean.spec(SPEC).dtypes == floats
    assert last.spec(SPEC) == SPEC


def test_a_bool_or_a_text_has_only_a_last_value() -> None:
    Aggregation(10**9, Aggregate.LAST).check(SPEC, SPEC.names, 0)
    for how in (Aggregate.MEAN, Aggregate.MIN, Aggregate.MAX):
        Aggregation(10**9, how).check(SPEC, ("Pressure", "strokes"), 0)
        with pytest.raises(Invalid) as error:
            Aggregation(10**9, how).check(SPEC, SPEC.names, 0)
        assert str(error.value) == (
            f"how={how} needs numbers, and of factory/pump-rig/rig 'running' is bool, 'recipe' is"
            " string (how=last takes every signal, or name signals that are numbers: Pressure,"
            " strokes)"
        )


def test_no_window_begins_before_the_earliest_instant() -> None:
    day = Aggregation(width_ns("1d"))
    first_ns = day.begin_ns(EARLIEST_NS) + day.every_ns
    day.check(SPEC, ("Pressure",), first_ns)
    with pytest.raises(Invalid, match="first window of 1d"):
        day.check(SPEC, ("Pressure",), first_ns - 1)
