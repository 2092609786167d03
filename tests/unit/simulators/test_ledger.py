"""The source's ledger: what it holds was written before, and whole."""

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.errors import Corrupt, Refused, Taken, Unavailable, Unknown
from simulators import ledger
from simulators.model import SourceRow

NAMES = ("a", "b")
ROWS = (
    SourceRow(1_583_748_873_000_000_000, (0.1, 32.0), anomaly=False),
    SourceRow(1_583_748_874_000_000_000, (1e-300, -0.0), anomaly=True, cause="valve+bearing"),
    SourceRow(1_583_748_874_000_000_000, (5e-324, 1.7e308)),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "offered.jsonl"


def test_what_was_entered_is_read_again_bit_for_bit(path):
    with ledger.create(path, NAMES) as book:
        book.append(ROWS[:1])
        book.append(ROWS[1:])
    assert ledger.read(path) == ledger.LedgerContent(NAMES, ROWS)


def test_rows_are_on_the_disk_as_soon_as_they_are_entered(path):
    with ledger.create(path, NAMES) as book:
        assert ledger.read(path).rows == ()
        book.append(ROWS)
        assert ledger.read(path).rows == ROWS


def test_of_a_long_ledger_the_rows_of_a_span_are_read(path):
    with ledger.create(path, NAMES) as book:
        book.append(ROWS)
    first_ns, second_ns = ROWS[0].time_ns, ROWS[1].time_ns
    assert ledger.read(path, from_ns=second_ns).rows == ROWS[1:]
    assert ledger.read(path, from_ns=first_ns, to_ns=second_ns).rows == ROWS[:1]


def test_a_line_that_was_cut_short_was_never_offered(path):
    with ledger.create(path, NAMES) as book:
        book.append(ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert ledger.read(path).rows == ROWS[:-1]


def test_a_ledger_is_never_written_over(path):
    path.write_text("mine")
    with pytest.raises(Taken, match="name a new file"), ledger.create(path, NAMES):
        pass
    assert path.read_text() == "mine"


def test_a_ledger_needs_its_folder(path):
    with pytest.raises(Unknown, match="there is no folder"), ledger.create(path / "x", NAMES):
        pass


@contextmanager
def largest_file(size):
    """The disk takes no file beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_what_was_entered_stays(path):
    with ledger.create(path, NAMES) as book:
        book.append(ROWS[:1])
        with pytest.raises(Unavailable, match="was not written"):
            enter_beyond(book, path)
    assert ledger.read(path).rows == ROWS[:1]


def enter_beyond(book, path):
    with largest_file(path.stat().st_size + 9):
        book.append(ROWS[1:])


def test_a_disk_that_is_full_from_the_start_is_told():
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed below
    with full, pytest.raises(Unavailable, match="No space left on device"):
        ledger.SourceLedger(full, NAMES)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"datetime;Current\n",
        b'{"v":1}\n',
        b'{"v":1,"signals":["a","b"]}\n[1,[1.0],null,""]\n',
        b'{"v":1,"signals":["a","b"]}\n[1,[1.0,2.0]]\n',
        b'{"v":1,"signals":["a","b"]}\n{}\n',
        b'{"v":1,"signals":["a","b"]}\n[1,2,3,4]\n',
        b"[]\n",
        b"\xff\xfe\n",
    ],
)
def test_what_is_no_ledger_is_told(path, content):
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="is no ledger"):
        ledger.read(path)


def test_a_ledger_of_an_unknown_version_is_refused(path):
    path.write_bytes(b'{"v":2,"signals":["a","b"]}\n')
    with pytest.raises(Refused, match="has version 2, this version reads 1"):
        ledger.read(path)


def test_a_ledger_that_is_not_there_is_unknown(path):
    with pytest.raises(Unknown, match="cannot be read"):
        ledger.read(path)
