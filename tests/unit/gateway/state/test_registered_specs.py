"""The specs that a gateway knows without the API."""

from pathlib import Path

from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from gateway.state import registered_specs

A = StreamSpec(StreamAddress("o", "e", "a"), (Signal("x"),))
B = StreamSpec(StreamAddress("o", "e", "b"), (Signal("y", unit="bar"),))


def test_specs_are_known_under_the_versions_that_they_were_registered_with(tmp_path: Path) -> None:
    file = tmp_path / "specs.jsonl"
    assert registered_specs.stored(file, [A]) is None
    registered_specs.store(file, [A.numbered(3), B.numbered(7)])
    assert registered_specs.stored(file, [B, A]) == [B.numbered(7), A.numbered(3)]


def test_a_spec_that_is_new_or_was_changed_is_not_known(tmp_path: Path) -> None:
    file = tmp_path / "specs.jsonl"
    registered_specs.store(file, [A.numbered(3)])
    assert registered_specs.stored(file, [A, B]) is None
    changed = StreamSpec(A.address, (Signal("x", unit="bar"),))
    assert registered_specs.stored(file, [changed]) is None


def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path) -> None:
    file = tmp_path / "specs.jsonl"
    file.write_bytes(b"{")
    assert registered_specs.stored(file, [A]) is None
    registered_specs.store(tmp_path / "gone" / "specs.jsonl", [A])  # said in the log
