"""Recordings: read exactly, in whatever form, and all that could not be read is said."""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pyarrow as pa
import pytest
from pyarrow import parquet

from broker.batch import BAD, GOOD, NO_SAMPLE
from broker.clock import ns_of
from broker.errors import Invalid, Unknown
from simulators import replay
from simulators.table_files.form import TableForm

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


BAD_CELLS = {
    "a word": ("79.5158", "hot", "Temperature 'hot'"),
    "a decimal comma among points": ("79.5158", "79,5158", "Temperature '79,5158'"),
    "Python's own number": ("236.04", "2_36", "Voltage '2_36'"),
    "Arabic digits": ("236.04", "\u0662", "Voltage '\u0662'"),
    "infinity": ("1.3302", "-inf", "Current '-inf'"),
    "too large": ("1.3302", "1e999", "Current '1e999'"),
}


@pytest.mark.parametrize("what", BAD_CELLS)
def test_a_cell_that_cannot_be_read_costs_itself_alone_and_is_named(written, what):
    old, new, named = BAD_CELLS[what]
    recording = replay.read(written(TEXT.replace(old, new)))
    values = [value for row in recording.content for value in row.values]
    codes = [code for row in recording.content for code in row.quality or (GOOD,) * 8]
    assert (values.count(None), codes.count(BAD), codes.count(GOOD)) == (1, 1, 15)
    assert "cells that cannot be read, and are bad: 1" in recording.notes
    assert named in recording.notes[-1]


@pytest.mark.parametrize("cell", ["", "-", "NaN", "null", "n/a", "#N/A"])
def test_an_empty_cell_is_no_sample_of_its_signal(written, cell):
    first, second = replay.read(written(TEXT.replace("79.5158", cell))).content
    assert first.quality == ()
    assert second.quality.count(NO_SAMPLE) == second.values.count(None) == 1
    assert second.values[4] is None


LEFT_OUT = {
    "a cell too few": ("79.5158;", "", "rows without 11 cells"),
    "a cell too many": ("79.5158", "79;5158", "rows without 11 cells"),
    "a date alone": ("09 10:14:34", "09", "rows without a time"),
    "a 13th month": ("2020-03-09 10:14:34", "2020-13-09 10:14:34", "rows without a time"),
    "a time long ago": ("2020-03-09 10:14:34", "1969-12-31 23:59:59", "rows without a time"),
    "a time far off": ("2020-03-09 10:14:34", "2300-03-09 10:14:34", "rows without a time"),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_a_row_that_cannot_be_placed_is_left_out_and_said(written, what):
    old, new, said = LEFT_OUT[what]
    assert old in TEXT
    recording = replay.read(written(TEXT.replace(old, new)))
    assert len(recording.content) == 1
    assert any(note.startswith(said) and note.endswith(": 1") for note in recording.notes)
    assert "line 3: " in recording.notes[-1]


def test_rows_are_played_in_the_order_of_time(written):
    recording = replay.read(written(TEXT.replace("10:14:34", "10:14:32")))
    assert [row.values[3] for row in recording.content] == [-0.382638, 0.054711]
    assert any("in the order of time" in note for note in recording.notes)


@pytest.mark.parametrize(
    ("word", "anomaly"), [("False", False), ("true", True), ("2", True), ("", None), ("odd", None)]
)
def test_labels_are_words_or_numbers(written, word, anomaly):
    text = TEXT.replace("32.0;1.0;1.0", f"32.0;{word};1.0")
    assert replay.read(written(text)).content[1].anomaly is anomaly


TIMES = ["2026-03-09T10:14:33.5Z", "2026-03-09T10:14:34.5Z"]
WIDE = "time;a [bar];b\n{};1.5;2\n{};2.5;3\n"
FORMS = {
    "ISO with a zone": WIDE.format("2026-03-09T11:14:33.5+01:00", "2026-03-09T11:14:34.5+01:00"),
    "commas": WIDE.format(*TIMES).replace(";", ","),
    "tabs": WIDE.format(*TIMES).replace(";", "\t"),
    "decimal commas": WIDE.format("09.03.2026 10:14:33,5", "09.03.2026 10:14:34,5")
    .replace("1.5", "1,5")
    .replace("2.5", "2,5"),
    "slashes of a day that is no month": WIDE.format(
        "09/03/2026 10:14:33.5", "09/03/2026 10:14:34.5"
    )
    + "19/03/2026 10:14:33;1.5;2\n",
    "month first": WIDE.format("03/09/2026 10:14:33.5 AM", "03/09/2026 10:14:34.5 AM")
    + "03/19/2026 10:14:33 AM;1.5;2\n",
    "epoch seconds": WIDE.format("1773051273.5", "1773051274.5"),
    "epoch milliseconds": WIDE.format("1773051273500", "1773051274500"),
    "epoch nanoseconds": WIDE.format("1773051273500000000", "1773051274500000000"),
    "another name of the time": WIDE.format(*TIMES).replace("time", "Zeitstempel"),
    "no name of the time": WIDE.format(*TIMES).replace("time", "x"),
    "time not first": "b,a [bar],when\n2,1.5,{}\n3,2.5,{}\n".format(*TIMES),
    "date and time apart": "date;time;a [bar];b\n2026-03-09;10:14:33.5;1.5;2\n"
    "2026-03-09;10:14:34.5;2.5;3\n",
    "Excel's first line": "sep=;\n" + WIDE.format(*TIMES),
    "comments above": "# written by a logger\n// twice\n" + WIDE.format(*TIMES),
    "a head of other lines": "Device;press 4\nOperator;\n\n" + WIDE.format(*TIMES),
    "UTF-16": WIDE.format(*TIMES).encode("utf-16"),
    "UTF-16 without a mark": WIDE.format(*TIMES).encode("utf-16-le"),
    "a column of texts": "\n".join(
        f"{line};{'note' if at == 0 else 'ok'}"
        for at, line in enumerate(WIDE.format(*TIMES).splitlines())
    ),
    "a delimiter behind each row": WIDE.format(*TIMES).replace("\n", ";\n"),
    "quotes": WIDE.format(*TIMES).replace("1.5", '"1.5"').replace("time", '"time"'),
    "one value a row": "VarName;TimeString;VarValue;Validity\n"
    "a [bar];09.03.2026 10:14:33,5;1,5;1\nb;09.03.2026 10:14:33,5;2;1\n"
    "$RT_OFF$;09.03.2026 10:14:34;0;2\n"
    "a [bar];09.03.2026 10:14:34,5;2,5;1\nb;09.03.2026 10:14:34,5;3;1\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_read_in_the_form_that_people_have_it_in(written, form):
    recording = replay.read(written(FORMS[form]))
    signals = {signal.name: signal for signal in recording.signals}
    assert set(signals) == {"a", "b"}
    assert signals["a"].unit == "bar"
    first, second = (dict(zip(signals, row.values, strict=True)) for row in recording.content[:2])
    assert (first, second) == ({"a": 1.5, "b": 2.0}, {"a": 2.5, "b": 3.0})
    assert [row.time_ns for row in recording.content[:2]] == [ns_of(text) for text in TIMES]


def test_seconds_since_the_start_begin_at_the_epoch(written):
    recording = replay.read(written("t [s],a\n0.0,1\n0.1,2\n".replace("t [s]", "time [s]")))
    assert [row.time_ns for row in recording.content] == [0, 100_000_000]


def test_what_one_does_not_guess_is_asked_for(written):
    with pytest.raises(Invalid, match="which is the day, and which the month"):
        replay.read(written(WIDE.format("03/09/2026 10:14:33", "03/09/2026 10:14:34")))


def test_a_form_that_is_said_counts_before_any_guess(written):
    path = written(WIDE.format("03/09/2026 10:14:33", "03/09/2026 10:14:34"))
    form = TableForm(
        time="time",
        time_format="%d/%m/%Y %H:%M:%S",
        zone="Europe/Stockholm",
        signals={"b": "Speed"},
    )
    recording = replay.read(path, form)
    assert [signal.name for signal in recording.signals] == ["Speed"]
    assert recording.content[0].time_ns == ns_of("2026-09-03T08:14:33Z")


def test_a_column_of_the_form_that_is_not_there_is_named(written):
    with pytest.raises(Invalid, match=r"column 'when' is missing \(there are 'time', 'a \[bar\]'"):
        replay.read(written(WIDE.format(*TIMES)), TableForm(time="when"))


def test_names_in_any_script_become_names_of_signals_that_stay_apart(written):
    text = "time;温度;Öldruck;Δp;温度 2\n2026-03-09 10:14:33;1;2;3;4\n"
    names = [signal.name for signal in replay.read(written(text)).signals]
    assert names == ["WenDu", "Oeldruck", "delta p", "WenDu 2"]
    described = [signal.description for signal in replay.read(written(text)).signals]
    assert described == ["温度", "Öldruck", "Δp", "温度 2"]


def test_a_workbook_and_a_parquet_file_are_read(tmp_path):
    book = openpyxl.Workbook()
    rows = [["time", "a [bar]", "ok"], ["2026-03-09 10:14:33", 1.5, True], [None] * 3]
    for row in [*rows, [datetime.fromisoformat("2026-03-09 10:14:34"), None, False]]:
        book.active.append(row)
    book.save(tmp_path / "rig.xlsx")
    table = {
        "time": [datetime(2026, 3, 9, 10, 14, second, tzinfo=UTC) for second in (33, 34)],
        "a [bar]": [1.5, None],
        "ok": [True, False],
    }
    parquet.write_table(pa.table(table), tmp_path / "rig.parquet")
    for name in ("rig.xlsx", "rig.parquet"):
        recording = replay.read(tmp_path / name)
        first, second = recording.content
        assert (first.values, second.values) == ((1.5, True), (None, False))
        assert first.time_ns == ns_of("2026-03-09T10:14:33Z")
        assert second.quality == (NO_SAMPLE, GOOD)


@pytest.mark.parametrize("name", ["rig.xlsx", "rig.parquet", "rig.xls"])
def test_a_workbook_that_is_none_is_refused(tmp_path, name):
    (tmp_path / name).write_text("time;a\n")
    with pytest.raises(Invalid, match=f"{name}"):
        replay.read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (HEADER.encode(), "has a header and no rows"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", "is no text"),
        (b"name,place\nAda,here\nBob,there\n", "has no column of time"),
        (b"time;a\n2026-03-09 10:14:33;x\n2026-03-09 10:14:34;y\n", "has no column of numbers"),
        (f'{HEADER}\n"{"1" * 200_000}"'.encode(), ":2: field larger than field limit"),
        (b"\x81\x8d\x8f\n1;2\n", ":1: byte 0x81 is no text"),
    ],
    ids=["empty", "header alone", "a picture", "no time", "no numbers", "one huge cell", "bytes"],
)
def test_what_is_no_recording_is_refused(written, content, said):
    with pytest.raises(Invalid) as refused:
        replay.read(written(content))
    assert said in str(refused.value)
    assert refused.value.hint


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
