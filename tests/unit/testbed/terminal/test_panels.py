"""The framed lists of the help of `testbed`."""

import re

from testbed.terminal import panels

ROWS = [
    ("demo", "Run all of it."),
    ("up", "Run broker, recorder and API, until somebody stops it."),
]


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def test_each_line_is_as_wide_as_the_panel_and_long_texts_are_broken() -> None:
    top, demo, up, *rest, bottom = plain(panels.panel("Try it", ROWS, columns=40, name_columns=6))
    assert top == "╭─ Try it " + "─" * 29 + "╮"
    assert demo == "│ demo    Run all of it.               │"
    assert up == "│ up      Run broker, recorder and     │"
    assert [line.strip("│ ") for line in rest] == ["API, until somebody stops", "it."]
    assert bottom == "╰" + "─" * 38 + "╯"
    assert {len(line) for line in rest} == {40}


def test_a_narrow_terminal_leaves_room_for_the_texts() -> None:
    lines = plain(panels.panel("Try it", ROWS, columns=10))
    assert {len(line) for line in lines} == {4 + panels.TEXT_COLUMNS + 6}


def test_an_output_without_the_characters_gets_others() -> None:
    assert panels.frame_for("utf-8") is panels.ROUNDED
    for encoding in ("ascii", "latin-1", "no such encoding", None):
        assert panels.frame_for(encoding) is panels.PLAIN
