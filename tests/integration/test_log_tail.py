"""A log file that another process writes is read to its last line, rotated or not."""

from pathlib import Path

import pytest

from broker.process.log_tail import MOST_BYTES, LogTail


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nats.log"
    path.write_bytes(b"before\n")
    return path


@pytest.fixture
def tail(file: Path):
    opened = LogTail(file)
    yield opened
    opened.close()


def add(file: Path, text: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(text)


def rest(tail: LogTail) -> list[bytes]:
    lines: list[bytes] = []
    while portion := tail.read():
        lines += portion
    return lines


def test_only_what_is_added_is_read_by_whole_lines(file, tail):
    assert tail.read() == []
    add(file, b"one\ntwo\nthr")
    assert tail.read() == [b"one", b"two"]
    add(file, b"ee\n")
    assert tail.read() == [b"three"]
    assert tail.read() == []


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path):
    tail = LogTail(tmp_path / "later.log")
    assert tail.read() == []
    add(tmp_path / "later.log", b"one\n")
    assert tail.read() == [b"one"]
    tail.close()


def test_a_rotation_loses_no_line(file, tail):
    add(file, b"one\n")
    file.rename(file.with_name("nats.log.2026.11.30.10.00.00.000000001"))
    add(file.with_name("nats.log.2026.11.30.10.00.00.000000001"), b"two\n")
    add(file, b"three\n")
    assert rest(tail) == [b"one", b"two", b"three"]


def test_several_rotations_between_two_looks_lose_no_line(file, tail):
    for number in range(1, 4):
        add(file, b"%d\n" % number)
        file.rename(file.with_name(f"nats.log.2026.11.30.10.00.00.00000000{number}"))
    add(file, b"4\n")
    assert rest(tail) == [b"1", b"2", b"3", b"4"]
    assert tail.missed == 0


def test_a_file_that_was_removed_before_it_was_read_is_counted(file, tail):
    backup = file.with_name("nats.log.2026.11.30.10.00.00.000000001")
    file.rename(backup)
    backup.unlink()
    add(file, b"later\n")
    assert rest(tail) == [b"later"]
    assert tail.missed == 1


def test_a_file_that_is_cut_short_is_read_from_its_beginning(file, tail):
    add(file, b"a long line that is read\n")
    assert len(tail.read()) == 1
    file.write_bytes(b"new\n")
    assert tail.read() == [b"new"]


def test_much_is_read_in_portions(file, tail):
    add(file, b"x" * 99 + b"\n")
    add(file, (b"y" * 99 + b"\n") * (3 * MOST_BYTES // 100))
    first = tail.read()
    assert 0 < len(first) <= MOST_BYTES // 100
    assert len(first) + len(rest(tail)) == 3 * MOST_BYTES // 100 + 1
