"""An alarm of a server is one row, although each of its streams carries it."""

from broker.responses.operations import StatusResponse, StreamStatusResponse
from testbed.client import alarms

AWAY = "opc.tcp://127.0.0.1:4840 is not read: it does not answer"


def stream(name: str, *sentences: str, space: str = "live") -> StreamStatusResponse:
    example = StreamStatusResponse.example()
    return StreamStatusResponse.model_validate(
        example | {"stream": name, "space": space, "alarms": list(sentences)}
    )


def test_an_alarm_of_115_streams_is_listed_once():
    streams = [stream(f"factory/rig/s{number}", AWAY) for number in range(115)]
    (alarm,) = alarms.each_once(streams)
    assert alarm.subject == "factory/rig (115 streams)"
    assert alarm.sentence == AWAY


def test_alarms_of_other_equipment_spaces_and_streams_stay_apart():
    stated = alarms.each_once(
        [
            stream("factory/rig/a", AWAY, "Pressure is gone"),
            stream("factory/rig/b", AWAY),
            stream("factory/rig/b", AWAY, space="run-a"),
            stream("factory/press/a", AWAY),
            stream("factory/press/b"),
        ]
    )
    assert [(alarm.subject, alarm.space, alarm.sentence) for alarm in stated] == [
        ("factory/press/a", "live", AWAY),
        ("factory/rig (2 streams)", "live", AWAY),
        ("factory/rig/a", "live", "Pressure is gone"),
        ("factory/rig/b", "run-a", AWAY),
    ]


def test_a_silent_gateway_has_one_alarm_before_those_that_it_stated_until_then():
    silent = [{"equipment": "factory/rig", "space": "live", "since": "2026-11-23T12:00:00Z"}]
    streams = [
        stream("factory/rig/a", AWAY),
        stream("factory/rig/b", AWAY),
        stream("factory/rig/a", AWAY, space="run-a"),
        stream("factory/press/a", AWAY),
    ]
    example = StatusResponse.example() | {"silent": silent, "streams": streams}
    listed = alarms.of_status(StatusResponse.model_validate(example))
    assert [(alarm.subject, alarm.space) for alarm in listed] == [
        ("factory/press/a", "live"),
        ("factory/rig", "live"),
        ("factory/rig (2 streams)", "live"),
        ("factory/rig/a", "run-a"),
    ]
    sentences = [alarm.sentence for alarm in listed]
    assert sentences[1].startswith("its gateway has said nothing since 2026-11-23T12:00:00Z: ")
    assert [sentences[0], *sentences[2:]] == [AWAY, f"{AWAY} (stated before)", AWAY]
