"""Tables: nothing that must be compared is cut, at any width and without a terminal."""

import io

import pytest

from broker.responses.enrolment import GatewayResponse
from broker.responses.grants import GrantResponse
from testbed.terminal import tables
from testbed.terminal.screen import Screen

STREAM = "a-factory-with-a-long-name/pump-rig-of-the-north-hall/vibration-of-the-first-bearing"
FINGERPRINT = "9F86:D081:884C:7D65:9A2F:EAA0:C55A:D015"
GRANT = GrantResponse.example() | {"stream": STREAM, "from": "2026-11-23T12:00:00.123456789Z"}
COLUMNS = tables.fields(
    GrantResponse, "id", "company", "stream", "space", "from_", "until", "purpose"
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(rows, columns, width=None) -> str:
    """The output on a terminal of this width; without one if it is None."""
    file = io.StringIO() if width is None else Terminal()
    options = {} if width is None else {"width": width, "height": 50, "color_system": None}
    tables.print_rows(rows, columns, Screen(file=file, **options))
    return file.getvalue()


def grants(**changed):
    return [GrantResponse.model_validate(GRANT | changed)]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200, None])
def test_names_and_times_are_whole_at_every_width(width):
    text = printed(grants(), COLUMNS, width)
    for whole in (STREAM, "2026-11-23T12:00:00.123456789Z", "for ever"):
        assert whole in text
    gateways = [GatewayResponse.model_validate(GatewayResponse.example())]
    columns = tables.fields(GatewayResponse, "principal", "since", "fingerprint", "code_made_by")
    assert FINGERPRINT in printed(gateways, columns, width)
    assert "…" not in text


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_line_of_a_table_is_longer_than_the_terminal(width):
    for line in printed(grants(stream="a/b/c"), COLUMNS, width).splitlines():
        assert len(line) <= width


def test_a_terminal_that_is_too_narrow_gets_a_block_of_fields_for_each_row():
    text = printed(grants() + grants(id=6, until="2026-12-01T00:00:00.000000000Z"), COLUMNS, 80)
    first, second, rest = text.split("\n\n")
    assert not rest
    assert f"stream:  {STREAM}" in first.splitlines()
    assert "until:   for ever" in first.splitlines()
    assert "until:   2026-12-01T00:00:00Z" in second.splitlines()


def test_instants_are_cut_to_the_second_where_a_table_says_so():
    (column,) = tables.fields(GrantResponse, "from_", whole_seconds=True)
    (exact,) = tables.fields(GrantResponse, "from_")
    grant = GrantResponse.model_validate(GRANT)
    assert column.cell(grant) == "2026-11-23T12:00:00Z"
    assert exact.cell(grant) == "2026-11-23T12:00:00.123456789Z"


def test_without_a_terminal_each_row_is_one_line_whatever_columns_say(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    purpose = "to find out why the pump stalls, " * 20
    heading, first, second = printed(
        grants(purpose=purpose) + grants(stream="a/b/c"), COLUMNS
    ).splitlines()
    assert heading.split() == ["id", "company", "stream", "space", "from", "until", "purpose"]
    assert first.endswith(purpose.strip())
    assert first.index(STREAM) == second.index("a/b/c") == heading.index("stream")
    assert len(second) < len(STREAM) + 130 < len(first)


def test_without_a_terminal_a_cell_of_several_lines_stays_in_its_column():
    streams = tables.TableColumn(heading="stream", cell="\n".join)
    count = tables.TableColumn(heading="at", cell=lambda row: str(len(row)))
    assert printed([["a", "b"]], [streams, count]) == "stream  at\na       2\nb\n"


def test_only_prose_is_broken_into_lines():
    text = printed(grants(stream="a/b/c", purpose="why it stalls " * 20), COLUMNS, 130)
    assert text.count("why it") > 1
    assert text.count("a/b/c") == 1


@pytest.mark.parametrize("width", [60, 200])
def test_a_name_with_a_new_line_makes_no_row(width):
    text = printed(grants(company="eve\nstate: granted"), COLUMNS, width)
    assert "eve\\nstate: granted" in text


def test_without_rows_it_says_none():
    assert printed([], COLUMNS, 80) == "none\n"


def test_a_field_that_an_answer_does_not_have_is_no_column():
    with pytest.raises(KeyError):
        tables.fields(GrantResponse, "colour")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2026-11-23T12:00:00.000000000Z", "2026-11-23T12:00:00Z"),
        ("2026-11-23T12:00:10.500000000Z", "2026-11-23T12:00:10.5Z"),
        ("2026-11-23T12:00:10.000000001Z", "2026-11-23T12:00:10.000000001Z"),
        ("version 1.00Z", "version 1.00Z"),
        (True, "yes"),
        (36_500.0, "36500"),
        (0.1, "0.1"),
        (["owner", "engineer"], "owner, engineer"),
        ([], "-"),
        ("", "-"),
        ("\x1b[2J", "\\x1b[2J"),
    ],
)
def test_a_value_as_a_cell(value, text):
    assert tables.text(value) == text
