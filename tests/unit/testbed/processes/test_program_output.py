"""A prototype's output: lines are shown as they come, bounded, without what moves a cursor."""

import io
import sys
import sysconfig

import pytest

from broker.errors import Invalid, Unknown
from testbed.processes import program, program_end
from testbed.processes.program import (
    MOST_LINE_BYTES,
    MOST_LOG_BYTES,
    MOST_SHOWN_LINES,
    PrototypeOutput,
)


def output():
    lines, log = [], io.BytesIO()
    return PrototypeOutput(log, lines.append), lines, log


def test_lines_are_shown_whole_however_the_bytes_come():
    fed, lines, log = output()
    for chunk in (b"fir", b"st\nsec", b"ond\n", b"la"):
        fed.feed(chunk)
    assert lines == ["first", "second"]
    fed.end()
    fed.end()
    assert lines == ["first", "second", "la"]
    assert log.getvalue() == b"first\nsecond\nla"


def test_colours_tabs_and_progress_bars_are_plain_text():
    fed, lines, _ = output()
    fed.feed("\x1b[31mred\x1b[0m\tx\r\n 10 %\r100 %\n\xff\n".encode("latin-1"))
    assert lines == ["red     x", "100 %", "\N{REPLACEMENT CHARACTER}"]


def test_of_endless_lines_the_first_are_shown_and_the_last_kept():
    fed, lines, _ = output()
    for start in range(0, 10_000, 1_000):
        fed.feed(b"".join(b"%d\n" % number for number in range(start, start + 1_000)))
    assert fed.lines == 10_000
    assert fed.is_cut
    assert lines[:MOST_SHOWN_LINES] == [str(number) for number in range(MOST_SHOWN_LINES)]
    (note,) = lines[MOST_SHOWN_LINES:]
    assert "no more are shown" in note
    assert fed.last[-1] == "9999"


NODE = [
    *("node:internal/modules/cjs/loader:1080", "  throw err;", "  ^", ""),
    "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'testbed' imported from /a.mjs",
    *(f"    at step {number}" for number in range(10)),
    *("  code: 'ERR_MODULE_NOT_FOUND'", "}", "", "Node.js v22"),
]


def test_the_line_with_the_error_is_told_with_the_last_lines():
    fed, _, _ = output()
    fed.feed("\n".join([*NODE, ""]).encode())
    first, cut, *last = program_end.telling_lines(tuple(fed.last))
    assert (first, cut, last) == (NODE[4], "…", NODE[-program_end.SHOWN_LINES :])
    python = ["ValueError: the first", *map(str, range(20)), "KeyError: 'the last'"]
    assert program_end.telling_lines(python) == tuple(python[-program_end.SHOWN_LINES :])
    assert program_end.telling_lines(["a"]) == ("a",)
    assert program_end.telling_lines(list(map(str, range(20))))[0] == "8"


def test_endless_bytes_without_a_line_end_are_cut_into_lines_and_fill_no_disk():
    fed, lines, log = output()
    for _ in range(200):
        fed.feed(b"x" * 65_536)
    assert lines[0] == "x" * MOST_LINE_BYTES
    assert len(lines) == MOST_SHOWN_LINES
    assert log.tell() == MOST_LOG_BYTES


def test_a_command_is_its_words_or_a_line_of_a_shell():
    assert program.checked_command([sys.executable, "a b"]) == (sys.executable, "a b")
    assert program.checked_command([f"{sys.executable} 'a b'"]) == (sys.executable, "a b")


def test_a_command_that_cannot_run_says_what_to_do(tmp_path):
    script = tmp_path / "my.py"
    script.write_text("print()")
    with pytest.raises(Unknown, match="'pyhton' does not exist"):
        program.checked_command(["pyhton", "my.py"])
    with pytest.raises(Invalid, match="cannot be executed") as failure:
        program.checked_command([str(script), "--fast"])
    assert f"python {script}" in failure.value.hint
    with pytest.raises(Invalid, match="no command is named"):
        program.checked_command([" "])
    with pytest.raises(Invalid, match="no line of a shell"):
        program.checked_command(["python 'my.py"])


def test_python_is_found_where_the_caller_has_none():
    assert program.search_path({"PATH": "/nowhere"}).startswith("/nowhere:")
    assert sysconfig.get_path("scripts") in program.search_path({}).split(":")
