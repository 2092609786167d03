"""Batches as server-sent events."""

from testbed_api.http import live_events


def test_a_batch_is_one_event():
    assert live_events.event(b'{"v":1}') == b'event: batch\ndata: {"v":1}\n\n'


def test_no_line_break_of_a_payload_ends_the_event():
    for line_break in (b"\n", b"\r", b"\r\n"):
        text = live_events.event(b"a" + line_break * 2 + b"event: missed")
        assert text.count(b"\n\n") == 1
        assert b"\nevent: missed" not in text


def test_an_empty_payload_is_an_event_too():
    assert live_events.event(b"") == b"event: batch\ndata: \n\n"
