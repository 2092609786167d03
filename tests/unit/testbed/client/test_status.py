"""The table of `testbed status`."""

import io

from broker.clock import SteppedClock, ns_of
from broker.responses.operations import StatusResponse
from testbed.client import alarms, status
from testbed.terminal.screen import Screen

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
    answer = {"since": "2026-11-23T11:00:00Z", "interrupted": None, "broker": True}
    answer |= {"alarms": [], "notices": [], "refused": [], "silent": []} | changed
    text = io.StringIO()
    out = Screen(file=text, width=160)
    answer["streams"] = list(streams)
    status.print_status(StatusResponse.model_validate(answer), out, NOW)
    return text.getvalue()


def test_what_is_worst_stands_first() -> None:
    text = printed(
        row("well"),
        row("holed", gaps=3),
        row("alarmed", alarms=["node i=5 is [missing]"]),
        row("silent", state="stale", last="2026-11-23T09:00:00Z"),
        row("new", last=None),
        row("output", state=None, last=None),
    )
    order = [text.index(name) for name in ("rig/silent", "rig/alarmed", "rig/holed", "rig/new")]
    assert order == sorted(order)
    assert "node i=5 is [missing]" in text
    assert "3.0 h" in text
    assert "2.0 s" in text
    assert text.count("never") == 1  # of an output nobody states its newest sample
    assert "6 streams, 1 stale" in text
    assert "\x1b" not in text  # colour is for terminals


def test_a_recorder_that_waits_is_said_before_all_else() -> None:
    text = printed(row("well"), interrupted="the disk is full", broker=False)
    assert text.startswith("recording is interrupted: the disk is full\nthe API is not connected")


def test_what_is_wrong_with_the_testbed_itself_stands_above_the_streams() -> None:
    sentence = "the certificate of the API, api.pem, ends within 7 days, on 2026-11-30 12:00 UTC: …"
    text = printed(row("well"), alarms=[sentence])
    assert text.startswith(sentence)
    assert text.count(sentence) == 1
    answer = StatusResponse.model_construct(alarms=[sentence])
    (alarm,) = alarms.of_testbed(answer)
    assert (alarm.subject, alarm.sentence) == ("the testbed", sentence)


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


def test_an_alarm_of_115_streams_is_one_line_and_its_count_stands_with_each() -> None:
    sentence = "opc.tcp://127.0.0.1:4840 is not read: it does not answer"
    text = printed(*(row(f"s{number}", alarms=[sentence]) for number in range(115)))
    assert text.count(sentence) == 1
    assert "factory/rig (115 streams)" in text
    assert len(text.splitlines()) < 115 + 15


def test_counts_name_the_command_that_shows_what_is_behind_them() -> None:
    text = printed(row("a", gaps=1), row("b", gaps=3), row("c", dead_letters=2, space="run-a"))
    since = "--from 2026-11-23T11:00:00Z"
    assert f"testbed stream gaps factory/rig/b --space live {since}" in text
    assert f"testbed stream dead-letters factory/rig/c --space run-a {since}" in text
    assert "testbed stream" not in printed(row("well"))


def refusal(stream: str, **changed: object) -> dict[str, object]:
    return {
        "act": "subscribe",
        "principal": "detector",
        "organisation": "company",
        "target": f"tb1/live/data/factory/rig/{stream}",
        "reason": "its rights do not cover this topic",
        "source": "10.0.0.7",
        "count": 2,
        "first": "2026-11-23T11:00:00Z",
        "last": "2026-11-23T11:30:00Z",
        "advice": "see `testbed grant list`",
        "own": False,
    } | changed


def test_others_refusals_are_a_line_for_each_stream_and_the_rest_is_counted() -> None:
    topics = ("data", "health")
    text = printed(
        row("well"),
        refused=[
            refusal("s", target=f"tb1/live/{verb}/factory/rig/s{number}")
            for number in range(7)
            for verb in topics
        ],
    )
    line = "detector of company: subscribe factory/rig/s0, 4 times, last 2026-11-23T11:30:00Z: "
    assert text.count(line) == 1
    assert "see `testbed grant list`" not in text
    assert "s5" not in text
    command = "testbed audit list --action subscribe --from 2026-11-23T11:00:00Z"
    assert f"8 more of other organisations; all: {command}\n" in text


def test_a_refusal_of_ones_own_program_says_what_to_do() -> None:
    text = printed(row("well"), refused=[refusal("a", own=True, principal="mine", count=1)])
    assert "mine of company: subscribe factory/rig/a, once, last" in text
    assert "\n  see `testbed grant list`\n" in text
    assert "audit list" not in text


STALE = {"state": "stale", "last": "2026-11-23T09:00:00Z"}


def test_a_stale_equipment_says_since_when_nothing_came_and_what_to_look_at() -> None:
    text = printed(row("a", **STALE), row("b", **STALE), row("well"))
    assert text.count("factory/rig: nothing came since 2026-11-23T09:00:00Z; its gateway runs") == 1
    assert "nothing came" not in printed(row("well"))


def test_a_gateway_that_says_nothing_any_more_is_one_alarm_with_since_when() -> None:
    silent = {"equipment": "factory/rig", "space": "live", "since": "2026-11-23T11:30:00Z"}
    streams = [row(f"s{number}", **STALE, alarms=["its disk is full"]) for number in range(12)]
    text = " ".join(printed(*streams, silent=[silent]).replace("│", " ").split())
    assert text.count("its gateway has said nothing since 2026-11-23T11:30:00Z") == 1
    assert "testbed gateway show factory/rig" in text
    assert text.count("its disk is full (stated before)") == 1
    assert "nothing came" not in text
    assert "12 streams, 12 stale" in text
