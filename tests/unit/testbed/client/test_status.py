"""The table of `testbed status`."""

import io

from rich.console import Console

from broker.clock import SteppedClock, ns_of
from testbed.client import status

NOW = SteppedClock(ns_of("2026-11-23T12:00:00Z"))


def row(stream: str, **changed: object) -> dict[str, object]:
    return {
        "stream": f"factory/rig/{stream}",
        "space": "live",
        "state": "fresh",
        "last": "2026-11-23T11:59:58Z",
        "alarms": [],
        "gaps": 0,
        "dead_letters": 0,
    } | changed


def printed(*streams: dict[str, object], **changed: object) -> str:
    answer = {"since": "2026-11-23T11:00:00Z", "interrupted": None, "broker": True, "notices": []}
    answer |= changed
    text = io.StringIO()
    out = Console(file=text, width=160)
    status.print_status(answer | {"streams": list(streams)}, out, NOW)
    return text.getvalue()


def test_what_is_worst_stands_first() -> None:
    text = printed(
        row("well"),
        row("holed", gaps=3),
        row("alarmed", alarms=["node i=5 is [missing]"]),
        row("silent", state="stale", last="2026-11-23T09:00:00Z"),
        row("new", state=None, last=None),
    )
    order = [text.index(name) for name in ("rig/silent", "rig/alarmed", "rig/holed", "rig/new")]
    assert order == sorted(order)
    assert "node i=5 is [missing]" in text
    assert "3.0 h" in text
    assert "2.0 s" in text
    assert "never" in text
    assert "5 streams, 1 stale" in text
    assert "\x1b" not in text  # colour is for terminals


def test_a_recorder_that_waits_is_said_before_all_else() -> None:
    text = printed(row("well"), interrupted="the disk is full", broker=False)
    assert text.startswith("recording is interrupted: the disk is full\nthe API is not connected")


def test_a_channel_whose_notices_do_not_arrive_is_named() -> None:
    channel = {
        "channel": "mail",
        "waiting": 3,
        "failed": 2,
        "since": "2026-11-23T11:00:00.000000000Z",
        "reason": "the mail server is away",
    }
    text = printed(notices=[channel, channel | {"channel": "webhook", "failed": 0}])
    assert "notices by mail do not arrive: the mail server is away; 3 wait" in text
    assert "webhook" not in text
