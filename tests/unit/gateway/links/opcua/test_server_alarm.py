"""The alarm of a server that is not read: it stands until data flow, and does not flap."""

from broker.clock import SteppedClock
from gateway.links.opcua.server_alarm import ServerAlarm
from tests.integration.machines import RecordingSink

URL = "opc.tcp://machine:4840"


async def test_a_session_clears_nothing_and_data_do() -> None:
    clock, sink = SteppedClock(), RecordingSink()
    alarm = ServerAlarm(sink, URL, clock)
    alarm.broke("connection refused")
    alarm.connected(1)
    assert sink.alarms == {"server": f"{URL} is not read: connection refused"}
    alarm.note_data()
    assert sink.alarms == {}
    assert not alarm.stands


async def test_other_reasons_in_a_row_change_the_sentence_less_and_less_often() -> None:
    clock, sink = SteppedClock(), RecordingSink()
    alarm = ServerAlarm(sink, URL, clock)
    for second in range(120):
        alarm.broke(f"reason {second}")
        alarm.broke(f"reason {second}")
        await clock.advance(1)
    assert [text.rpartition(" ")[2] for text in sink.said] == ["0", "1", "3", "7", "15", "31", "63"]


async def test_data_must_flow_for_longer_after_each_break_that_follows_soon() -> None:
    clock, sink = SteppedClock(), RecordingSink()
    alarm = ServerAlarm(sink, URL, clock)
    held_s = []
    for _ in range(6):
        alarm.broke("reset by peer")
        alarm.connected(1)
        seconds = 0
        while alarm.stands:
            alarm.note_data()
            await clock.advance(1)
            seconds += 1
        held_s.append(seconds - 1)
    assert held_s == [0, 5, 10, 20, 40, 60]
    await clock.advance(61)
    alarm.broke("reset by peer")
    alarm.note_data()
    assert sink.alarms == {}
