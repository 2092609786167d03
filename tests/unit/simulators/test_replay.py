"""Recordings: read exactly, or refused with file, line, column and value."""

import os
import stat
from pathlib import Path

import pytest

from broker.clock import ns_of
from broker.errors import Invalid, Unknown
from simulators import replay

HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;"
    "Thermocouple;Voltage;Volume Flow RateRMS;anomaly;changepoint"
)
FIRST = "2020-03-09 10:14:33;0.0265878;0.0401113;1.3302;0.054711;79.3366;26.0199;233.062;32.0"
SECOND = "2020-03-09 10:14:34;0.0261697;0.0404525;1.35399;-0.382638;79.5158;26.0258;236.04;32.0"
TEXT = f"{HEADER}\n{FIRST};0.0;0.0\n{SECOND};1.0;1.0\n"

SKAB = Path(os.environ.get("TESTBED_SKAB", Path(__file__).parents[4] / "shared/data/skab"))
RECORDINGS = sorted(SKAB.glob("*.csv"))


@pytest.fixture
def written(tmp_path):
    """Writes a recording, and gives its path."""

    def write(content):
        path = tmp_path / "rig.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_values_and_times_are_those_of_the_file(written):
    first, second = replay.read(written(TEXT)).content
    assert first.time_ns == ns_of("2020-03-09T10:14:33Z")
    assert first.values == (0.0265878, 0.0401113, 1.3302, 0.054711, 79.3366, 26.0199, 233.062, 32.0)
    assert (first.anomaly, second.anomaly) == (False, True)
    assert (first.cause, second.cause) == ("", "labelled")


def test_a_recording_can_be_played_again_from_the_beginning(written):
    recording = replay.read(written(TEXT))
    assert list(recording.rows()) == list(recording.rows()) == list(recording.content)


def test_without_labels_the_truth_is_not_known(written):
    text = "\n".join(line.rsplit(";", 2)[0] for line in TEXT.splitlines())
    assert [row.anomaly for row in replay.read(written(text)).content] == [None, None]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace(";", " ; "),
        lambda text: text.replace("09 10", "09T10"),
        lambda text: text.replace(":33;", ":33.000000;"),
        lambda text: text.replace(":33;", ":33Z;").replace("10:14:34", "11:14:34+01:00"),
        lambda text: "\n".join(f"{line};note" for line in text.splitlines()),
        lambda text: "\n".join(";".join(line.split(";")[::-1]) for line in text.splitlines()),
    ],
    ids=[
        "Windows lines",
        "byte order mark",
        "no last line end",
        "blank lines",
        "spaces",
        "ISO time",
        "microseconds",
        "zones",
        "another column",
        "another order",
    ],
)
def test_the_same_written_in_another_way_reads_the_same(written, change):
    assert replay.read(written(change(TEXT))) == replay.read(written(TEXT))


def test_rows_may_share_a_time_stamp(written):
    same = replay.read(written(TEXT.replace(":34;", ":33;"))).content
    assert same[0].time_ns == same[1].time_ns


WRONG = {
    "a missing column": ("Pressure;", "", ":1: column 'Pressure' is missing"),
    "a missing time": ("datetime", "time", ":1: column 'datetime' is missing"),
    "a column twice": ("changepoint", "Current", ":1: there are two columns 'Current'"),
    "commas": (";", ",", "column 'datetime' is missing (separated by semicolons"),
    "a cell too few": ("79.5158;", "", ":3: 10 cells, the header has 11 columns"),
    "a word": ("79.5158", "hot", ":3: Temperature 'hot' is no number"),
    "a decimal comma": ("79.5158", "79,5158", ":3: Temperature '79,5158' is no number"),
    "nothing": ("79.5158", "", ":3: Temperature '' is no number"),
    "Python's own number": ("236.04", "2_36", ":3: Voltage '2_36' is no number"),
    "Arabic digits": ("236.04", "\u0662", ":3: Voltage '\u0662' is no number"),
    "not a number": ("1.3302", "NaN", ":2: Current is NaN (a finite number is wanted)"),
    "infinity": ("1.3302", "-inf", ":2: Current is -inf (a finite number is wanted)"),
    "too large": ("1.3302", "1e999", ":2: Current 1e999 is too large"),
    "a label of two": ("1.0;1.0", "2;1.0", ":3: label anomaly is 2 (0 or 1)"),
    "a label of half": ("1.0;1.0", "1.0;0.5", ":3: label changepoint is 0.5 (0 or 1)"),
    "a date alone": ("09 10:14:33", "09", ":2: datetime '2020-03-09' is no time"),
    "a 13th month": ("2020-03-09 10:14:33", "2020-13-09 10:14:33", ":2: datetime '2020-13-09 10"),
    "a time long ago": ("2020-03-09 10:14:33", "1969-12-31 23:59:59", ":2: datetime 1969-12-31"),
    "a time far off": ("2020-03-09 10:14:34", "2300-03-09 10:14:34", ":3: datetime 2300-03-09"),
    "backwards": ("10:14:34", "10:14:32", ":3: datetime 2020-03-09 10:14:32 lies before the row"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_with_its_place(written, what):
    old, new, said = WRONG[what]
    assert old in TEXT
    path = written(TEXT.replace(old, new))
    with pytest.raises(Invalid) as refused:
        replay.read(path)
    assert str(refused.value).startswith(str(path))
    assert said in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (its first line is datetime;"),
        (HEADER.encode(), "has a header and no rows"),
        (TEXT.encode().replace(b"79.5158", b"79\xb05"), ":3: byte 0xb0 is no text in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00", ":1: byte 0x89 is no text in UTF-8"),
        (TEXT.encode().replace(b"79.5158", b"\x00"), ":3: "),
        (f'{HEADER}\n"{"1" * 200_000}"'.encode(), ":2: field larger than field limit"),
    ],
    ids=["empty", "header alone", "Latin-1", "a picture", "a zero byte", "one huge cell"],
)
def test_what_is_no_recording_is_refused(written, content, said):
    with pytest.raises(Invalid) as refused:
        replay.read(written(content))
    assert said in str(refused.value)


def test_a_file_that_is_not_there_is_unknown(tmp_path):
    with pytest.raises(Unknown, match="there is no recording"):
        replay.read(tmp_path / "no.csv")


def test_what_is_not_a_file_is_refused_before_it_is_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe):
        assert not stat.S_ISREG(path.stat().st_mode)
        with pytest.raises(Invalid, match="is not a file"):
            replay.read(path)


@pytest.mark.parametrize("path", [None, *RECORDINGS], ids=lambda path: path.name if path else "own")
def test_every_recording_at_hand_reads_whole(written, path):
    path = path or written(TEXT)
    lines = path.read_text().splitlines()
    rows = replay.read(path).content
    assert len(rows) == len(lines) - 1
    for line, row in zip(lines[1::97], rows[::97], strict=True):
        cells = line.split(";")
        assert [float(cell) for cell in cells[1:9]] == list(row.values)
        assert row.time_ns == ns_of(cells[0].replace(" ", "T") + "Z")
