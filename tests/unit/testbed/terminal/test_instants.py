"""Times of options become instants for the API."""

import pytest

from broker.clock import DAY_NS, NS_PER_S, WallClock, ns_of
from testbed.terminal import instants


def test_a_time_becomes_an_exact_instant_without_needless_digits():
    assert instants.instant("2026-03-01") == "2026-03-01T00:00:00Z"
    assert instants.instant("2026-03-01T08:00:00.500+01:00") == "2026-03-01T07:00:00.5Z"


def test_a_time_before_now_is_before_now():
    now_ns = WallClock().now_ns()
    before_ns = ns_of(instants.instant("-1d"))
    assert 0 <= before_ns - (now_ns - DAY_NS) < 10 * NS_PER_S


def test_a_text_that_names_no_time_ends_the_command_with_the_forms(capsys):
    with pytest.raises(SystemExit) as ended:
        instants.instant("monday")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 'monday' is not an instant\nhint: write -10m")
