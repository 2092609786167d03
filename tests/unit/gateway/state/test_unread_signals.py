"""The signals that a gateway could not read, kept over restarts."""

from gateway.state import unread_signals

STATED_NS = {("factory/rig/s", "a"): 1_700_000_000_000_000_001}


def test_what_was_stored_is_read_again(tmp_path) -> None:
    unread_signals.store(tmp_path / "unread.json", STATED_NS)
    assert unread_signals.stored(tmp_path / "unread.json") == STATED_NS


def test_a_file_that_is_missing_or_invalid_says_nothing(tmp_path) -> None:
    file = tmp_path / "unread.json"
    assert unread_signals.stored(file) == {}
    for content in (b"no JSON", b"[1]", b'[["a", "b", "c"]]'):
        file.write_bytes(content)
        assert unread_signals.stored(file) == {}
