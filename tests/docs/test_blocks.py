"""Blocks of README and the guides: each is run, or says why not; each command in them exists."""

import re
from pathlib import Path
from typing import Any

import pytest

from testbed import cli
from tests import sources
from tests.docs import blocks, loaders
from tests.docs.blocks import ROOT, RUN_BY, SHELL, Block, Command

NOTES = {blocks.NOT_RUN, blocks.RUN_BY, blocks.FILE, blocks.GIVEN, blocks.BEFORE}
INLINE = re.compile(r"(?<!`)`testbed ([^`]+)`")
PAGES = pytest.mark.parametrize("page", blocks.guides(), ids=sources.named)


def written(folder: Path, text: str) -> list[Block]:
    page = folder / "page.md"
    page.write_text(text)
    return blocks.of(page)


@PAGES
def test_every_block_is_of_a_kind_that_a_test_runs_or_reads(page: Path) -> None:
    known = {*SHELL, *loaders.LOADERS, "text"}
    assert [str(block) for block in blocks.of(page) if block.language not in known] == []


@PAGES
def test_every_note_is_one_that_counts_and_says_something(page: Path) -> None:
    for block in blocks.of(page):
        assert set(block.notes) <= NOTES, f"{block}: {sorted(block.notes)}"
        assert all(block.notes.values()), f"{block}: a note without a word"
    fences = page.read_text().count("\n```") // 2
    assert len(blocks.of(page)) == fences


@PAGES
def test_a_block_that_another_test_runs_names_a_test_that_is_there(page: Path) -> None:
    for block in blocks.of(page):
        if named := block.notes.get(RUN_BY):
            file, _, test = named.partition("::")
            assert f"def {test}(" in (ROOT / file).read_text(), f"{block}: {named}"


@PAGES
def test_every_command_that_a_page_names_exists_with_its_options(page: Path) -> None:
    root = cli.loaded_root()
    typed = [
        command.text
        for block in blocks.of(page)
        if block.language in SHELL
        for command in blocks.commands(block)
    ]
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    typed += [f"testbed {words}" for words in INLINE.findall(prose)]
    wrong = [reason for line in typed if (reason := _wrong(root, line))]
    assert wrong == []


def _wrong(root: Any, line: str) -> str:
    """The reason why a command line cannot be meant; empty if nothing is wrong."""
    joined = re.sub(r"\\?\n\s*", " ", line)
    match = re.search(r"(?:^|\$\(|^sudo (?:-u \S+ )?|^(?:[A-Z_]+=\S* )+)testbed (.+)", joined)
    if match is None:
        return ""
    words = re.split(r" \| | -- ", match[1])[0].split()  # a program behind -- has its own options
    command = root
    while words and words[0] in getattr(command, "commands", ()):
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands"):
        begins = words and re.fullmatch(r"[a-z][a-z-]*", words[0])
        return f"{line!r}: there is no such command" if begins else ""
    parameters = [*root.params, *command.params]  # those of `testbed` may stand anywhere
    known = {option for parameter in parameters for option in parameter.opts}
    known |= {"--help"}
    given = [word.rstrip(")") for word in words if word.startswith("--")]
    unknown = [option for option in given if option not in known]
    return f"{line!r}: {command.name} has no {unknown}" if unknown else ""


def test_blocks_have_their_lines_sections_and_notes(tmp_path: Path) -> None:
    text = (
        "# Page\n\n**1. First.** Do it.\n\n<!-- not run: it takes a PLC -->\n\n```console gateway\n"
        "$ a \\\n    --b   # why\nout\n$ c\n```\n\ntext <!-- not run: of nobody -->.\n\n"
        "## Second\n\n<!-- file: x.yaml -->\n<!-- before: something\nends -->\n```yaml\na: 1\n```\n"
    )
    first, second = written(tmp_path, text)
    assert (first.line, first.section, first.words) == (7, "1. First.** Do it.", ("gateway",))
    assert (first.notes, first.is_run) == ({"not run": "it takes a PLC"}, False)
    assert blocks.commands(first) == [Command("a \\\n    --b", ("out",)), Command("c", ())]
    assert (second.section, second.is_run) == ("Second", True)
    assert second.notes == {"file": "x.yaml", "before": "something\nends"}


def test_a_plain_block_is_a_command_a_line(tmp_path: Path) -> None:
    (block,) = written(tmp_path, "```\na   # why\n\n# all of it\nb \\\n  c\n```\n")
    assert [command.text for command in blocks.commands(block)] == ["a", "b \\\n  c"]


@pytest.mark.parametrize(
    ("printed", "output", "unseen"),
    [
        (["3 samples of 2026-11-23T12:00:00Z"], "4 samples of 2027-01-01T00:00:00.5Z\n", None),
        (["[0.054711 0.382638 …]"], "[-0.273216]\n", None),
        (["fay.…", "keep it"], "fay.abc_-9\nnoise\nkeep it\n", None),
        (["a", "b"], "b\na\n", "b"),
        (["│ rig │ fresh │"], "┏━━━┓\n│ rig   │ fresh   │\n", None),
        (["┃ stream …┃ state ┃", "│ rig │ fresh │"], "stream  space  state\nrig  fresh\n", None),
        (["│ rig │ fresh │"], "rig  stale\n", "│ rig │ fresh │"),
        (["SHA-256 F8:0A:7A:A5:…"], "SHA-256 00:11:22:33:44:55\n", None),
        (["a", "…", "c"], "a\nb\nc\n", None),
        (["stale"], "fresh\n", "stale"),
        (["nothing is wrong"], "nothing is wrong at all\n", "nothing is wrong"),
    ],
)
def test_an_output_is_what_the_page_says_but_for_numbers(printed, output, unseen) -> None:
    assert blocks.first_unseen(printed, output) == unseen


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("yaml", "organisation: factory\nstreams: {}\n"),
        ("yaml", "a: 1\n"),
        ("toml", "a = "),
        ("json", "{"),
        ("ini", "[Service]\nUser=x\n"),
        ("dockerfile", "FROM x\nDANCE\n"),
        ("python", "import\n"),
        ("cobol", ""),
    ],
)
def test_a_file_that_its_program_refuses_is_noticed(language: str, text: str) -> None:
    with pytest.raises(Exception, match=r".?"):
        loaders.load(language, text)


def test_a_command_that_is_not_there_or_has_no_such_option_is_noticed() -> None:
    root = cli.loaded_root()
    assert _wrong(root, "testbed dance")
    assert _wrong(root, "testbed tap --fast x")
    assert not _wrong(root, "X=$(testbed tap a/b/c --json)")
    assert not _wrong(root, "testbed tap a/b/c --as cora")
    assert not _wrong(root, "testbed try --speed 2 -- python x.py --fast")
    assert not _wrong(root, "testbed …")
