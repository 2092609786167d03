"""Times and durations as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from broker import time_expressions
from broker.clock import DAY_NS, NS_PER_S, ns_of
from broker.errors import Invalid
from broker.time_expressions import TIME_FORMS

NOW = ns_of("2026-11-23T12:34:56.789Z")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("now", "2026-11-23T12:34:56.789Z"),
        ("today", "2026-11-23T00:00:00Z"),
        ("yesterday", "2026-11-22T00:00:00Z"),
        ("Yesterday", "2026-11-22T00:00:00Z"),
        ("tomorrow", "2026-11-24T00:00:00Z"),
        ("-10m", "2026-11-23T12:24:56.789Z"),
        ("-10min", "2026-11-23T12:24:56.789Z"),
        ("now-2h", "2026-11-23T10:34:56.789Z"),
        ("now - 2h", "2026-11-23T10:34:56.789Z"),
        ("-1d12h", "2026-11-22T00:34:56.789Z"),
        ("-1.5h", "2026-11-23T11:04:56.789Z"),
        ("-250ms", "2026-11-23T12:34:56.539Z"),
        ("+30d", "2026-12-23T12:34:56.789Z"),
        ("2026-03-01", "2026-03-01T00:00:00Z"),
        (" 2026-03-01 ", "2026-03-01T00:00:00Z"),
        ("2026-03-01T08:00:00Z", "2026-03-01T08:00:00Z"),
        ("2026-03-01T08:00:00.123456789+01:00", "2026-03-01T07:00:00.123456789Z"),
    ],
)
def test_a_time_is_an_instant_for_who_writes_it_now(text, instant):
    assert time_expressions.resolve(text, NOW) == ns_of(instant)


@pytest.mark.parametrize(
    "text",
    [
        *("", "monday", "10m", "-", "-10", "-10x", "--10m", "-1d-2h", "now now", "nowish"),
        *("2026-3-1", "2026-03-01T08:00:00", "2026-03-01 08:00", "1772352000", "-2026-03-01"),
        *("-999999999999d", "\u0662\u0660\u0662\u0666-03-01", "x" * 10_000),
    ],
)
def test_a_text_that_names_no_time_is_refused_with_all_forms(text):
    with pytest.raises(Invalid, match="is not an instant") as refused:
        time_expressions.resolve(text, NOW)
    for form in ("-10m", "now", "today", "yesterday", "2026-11-23T12:00:00Z", "UTC"):
        assert form in refused.value.hint
    assert len(refused.value.message) < 100


def test_a_day_that_the_month_does_not_have_says_so():
    with pytest.raises(Invalid, match="'2026-02-30' is not an instant: day"):
        time_expressions.resolve("2026-02-30", NOW)


def test_a_datetime_is_taken_with_its_zone_and_refused_without():
    moment = datetime(2026, 11, 23, 13, 0, 0, 250, tzinfo=timezone(timedelta(hours=1)))
    assert time_expressions.resolve(moment, NOW) == ns_of("2026-11-23T12:00:00.00025Z")
    before = datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert time_expressions.resolve(before, NOW) == -NS_PER_S
    with pytest.raises(Invalid, match="has no time zone"):
        time_expressions.resolve(moment.replace(tzinfo=None), NOW)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1d12h", 129_600), ("10m", 600), ("10min", 600), ("1m30s", 90)]
)
def test_a_duration_is_read_in_seconds(text, seconds):
    assert time_expressions.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "1mo", f"{'9' * 400}d"])
def test_a_text_that_is_no_duration_is_refused_with_the_form(text):
    with pytest.raises(Invalid, match="is no duration") as refused:
        time_expressions.seconds(text)
    assert "30d, 12h or 1d12h" in refused.value.hint


@pytest.mark.parametrize(
    "text", ["2026-11-23T12:00:00", "2026-11-23 12:00", "2026-11-23T12:00:00.5"]
)
def test_a_text_without_a_time_zone_says_that_it_is_missing(text):
    with pytest.raises(Invalid, match="its time zone is missing") as refused:
        time_expressions.resolve(text, NOW)
    assert "add Z for UTC" in refused.value.hint


@pytest.mark.parametrize("value", [12345.6, 5, np.datetime64("2026-11-23")])
def test_what_is_neither_a_text_nor_a_datetime_is_refused_with_the_forms(value):
    with pytest.raises(Invalid, match="is not an instant: it is of type") as refused:
        time_expressions.resolve(value, NOW)
    assert TIME_FORMS in refused.value.hint


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("0s", 0),
        ("250ms", 250_000_000),
        ("0.1ms", 100_000),
        ("0.001ms", 1_000),
        ("3.333ms", 3_333_000),
        ("1h30min", 5_400_000_000_000),
        ("1d12h", 129_600_000_000_000),
    ],
)
def test_a_duration_is_exact_to_a_microsecond(text, duration_ns):
    assert time_expressions.nanoseconds(text) == duration_ns
    assert time_expressions.nanoseconds(time_expressions.duration_text(duration_ns)) == duration_ns


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 s", "0.0001ms", "400d", "9" * 1_000])
def test_a_text_that_is_no_exact_duration_is_refused(text):
    with pytest.raises(Invalid, match=r"is no (duration|whole number of microseconds)"):
        time_expressions.nanoseconds(text)


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0s"),
        (100_000, "0.1ms"),
        (1_000, "0.001ms"),
        (90_250_000_000, "1min30.25s"),
        (60_250_000_000, "1min250ms"),
        (2_000_000_001, "2.000000001s"),
        (12_345, "0.012345ms"),
        (600_000_000_000, "10min"),
        (10_000_000_000, "10s"),
        (30 * DAY_NS, "30d"),
    ],
)
def test_a_duration_is_written_in_the_fewest_units(duration_ns, text):
    assert time_expressions.duration_text(duration_ns) == text
