"""Durations as people write them."""

import pytest
import typer

from testbed.terminal import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("12h", 43_200),
        ("90min", 5_400),
        ("1d12h", 129_600),
        ("1.5h", 5_400),
        ("45s", 45),
        ("250ms", 0.25),
        (3_600.0, 3_600),
    ],
)
def test_a_duration_is_read_in_seconds(text, seconds):
    assert durations.seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "d", "30 d", "-1d", "0d", "1y", "1d12", "\u0663d", "inf"]
)
def test_what_is_no_duration_is_refused_with_the_form(text):
    with pytest.raises(typer.BadParameter, match="30d, 12h or 1d12h"):
        durations.seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2_592_000, "30d"), (5_400, "1h30min"), (129_600, "1d12h"), (0.25, "250ms"), (0, "0s")],
)
def test_a_duration_is_written_in_the_fewest_units(seconds, text):
    assert durations.text_of(seconds) == text
