"""Text of other parties is escaped: on a terminal, in a log, in a table, in an error."""

import io
import json

import pytest
import structlog
from rich.table import Table

from broker.errors import Invalid
from testbed.terminal import run
from testbed.terminal.screen import Screen, plain

HOSTILE = {
    "a new line": "eve\n2026-11-25 [info] grant was given principal=eve",
    "a carriage return": "eve\rroot",
    "a cleared screen": "\x1b[2Jeve",
    "a title of the window": "\x1b]0;eve\x07",
    "a control character of eight bits": "\x9b2Jeve",
    "a line separator": "eve\u2028root",
    "a next line": "eve\x85root",
    "letters turned round": "\u202eeve",
    "nothing to see": "e\u200bve",
    "half a character": "eve\ud800",
    "NUL": "eve\x00",
}
each = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[Terminal, io.StringIO], ids=["terminal", "json"])
def log(request):
    """The log as the processes write it, on a terminal and elsewhere."""
    file = request.param()
    run.log_to(file)
    yield file
    structlog.reset_defaults()


def without_our_colours(text: str) -> str:
    for code in range(100):
        text = text.replace(f"\x1b[{code}m", "")
    return text


def assert_is_one_plain_line(text: str) -> None:
    assert text.endswith("\n")
    assert plain(text[:-1]) == text[:-1]
    text.encode()


@each
def test_what_a_stranger_calls_itself_is_a_part_of_one_line_of_the_log(log, text):
    about = {"principal": text, "client_id": f"{text}--1", "topics": [text]}
    structlog.get_logger().info("connection was refused", **about)
    assert_is_one_plain_line(without_our_colours(log.getvalue()))
    if not log.isatty():
        assert json.loads(log.getvalue())["principal"] == text


@each
def test_no_line_of_a_traceback_looks_like_an_event_or_moves_the_cursor(log, text):
    try:
        raise LookupError(text)
    except LookupError:
        structlog.get_logger().exception("request failed")
    event, *rest = without_our_colours(log.getvalue()).split("\n")[:-1]
    for line in (event, *rest):
        assert_is_one_plain_line(line + "\n")
    assert all(line.startswith(("  ", "Traceback")) for line in rest)


@each
def test_an_error_repeats_it_as_text(capsys, text):
    with pytest.raises(SystemExit):
        run.fail(Invalid(f"there is no {text}", hint=text))
    errors = capsys.readouterr().err
    for line in errors.split("\n")[:-1]:
        assert_is_one_plain_line(line + "\n")


@each
def test_a_table_and_a_line_show_it_as_text(text):
    file = Terminal()
    screen = Screen(file=file, force_terminal=True, width=200)
    rows = Table("stream")
    rows.add_row(text)
    screen.print(rows)
    screen.print(text, style="red")
    for line in without_our_colours(file.getvalue()).split("\n")[:-1]:
        assert_is_one_plain_line(line + "\n")


@pytest.mark.parametrize("text", ["SHA-256 A8:AB:72", "DIN[red]3[/]", "ends here [/]", "1 [m]"])
def test_neither_emoji_nor_markup_is_read_into_it(text):
    file = io.StringIO()
    screen = Screen(file=file, width=200)
    rows = Table("stream", "what")
    rows.add_row("press", text)
    screen.print(text)
    screen.print(rows)
    assert file.getvalue().count(text) == 2


def test_ink_stays_as_it_is():
    for text in ("Prüfstand 7 · 20 µm", "試験機", "1\u202f000", "a  b", 'it\'s "so"'):
        assert plain(text) == text
