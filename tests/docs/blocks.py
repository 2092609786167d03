"""Fenced blocks of a document: their commands, what these print, and the notes above them.

A note is a comment in the document's source, directly above the block; no reader sees it:

    <!-- not run: REASON -->              why no test runs the block
    <!-- run by: tests/FILE.py::TEST -->  the test that runs it
    <!-- file: NAME -->                   the name under which the reader saves it
    <!-- given: PYTHON -->                what stands above a part of a program
    <!-- before: ACT -->                  what happens before it is typed; the test knows how

A block without a note is run, or read by the program that it is for.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELL = ("", "bash", "console", "sh")
"""Languages of blocks that hold commands; `console` has a prompt, and what they print."""
NOT_RUN, RUN_BY, FILE, GIVEN, BEFORE = "not run", "run by", "file", "given", "before"
ANYTHING = "…"
"""In what a command prints, any text; alone on a line, any lines."""

_FENCED = re.compile(r"^```(?P<info>[^`\n]*)\n(?P<text>.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_NOTES = re.compile(r"(?:<!--(?:(?!-->).)*-->\s*)+\Z", re.DOTALL)
_NOTE = re.compile(r"<!--\s*([a-z ]+?):\s*(.*?)\s*-->", re.DOTALL)
_SECTION = re.compile(r"^(?:\*\*|#+ )(.*)$", re.MULTILINE)
_REMARK = re.compile(r"\s+#\s.*$")
_PROMPT = "$ "
_VARIABLE = re.compile(
    r"\b(?:[A-Z2-9]{5}-){3}[A-Z2-9]{5}\b"  # a one-time code
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d+)?)?(?:Z| UTC)?"  # an instant
    r"|\b(?:[0-9A-F]{2}:){3,}(?:[0-9A-F]{2})?"  # a fingerprint
    r"|\b(?=[a-f]*\d)[0-9a-f]{6,}\b"  # a hash
    r"|(?<![A-Za-z\d])-?\d+(?:[.:]\d+)*\.?(?:e[-+]?\d+)?"  # a number
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a document.

    line: of its first fence, from 1.  language: first word of its info string, empty for none.
    words: the others.  section: the heading or the bold beginning of a paragraph above it.
    """

    document: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str
    section: str
    notes: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether no note says that it is not run here."""
        return not self.notes.keys() & {NOT_RUN, RUN_BY}


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, and the lines that its document says it prints."""

    text: str
    printed: tuple[str, ...]


def guides() -> list[Path]:
    """The documents whose blocks are typed by their readers: README, and every how-to page."""
    return [ROOT / "README.md", *sorted((ROOT / "docs/how-to").rglob("*.md"))]


def of(document: Path) -> list[Block]:
    """The blocks of a document, in order."""
    return list(_blocks(document, document.read_text()))


def _blocks(document: Path, text: str) -> Iterator[Block]:
    section, end = "", 0
    for match in _FENCED.finditer(text):
        above = text[end : match.start()]
        section = next(reversed(_SECTION.findall(above)), section)
        notes = _NOTES.search(above)
        language, *words = match["info"].split() or [""]
        yield Block(
            document=document,
            line=text.count("\n", 0, match.start()) + 1,
            language=language,
            words=tuple(words),
            text=match["text"],
            section=section,
            notes=dict(_NOTE.findall(notes[0])) if notes else {},
        )
        end = match.end()


def commands(block: Block) -> list[Command]:
    """The commands of a block, without the remarks behind them; a backslash continues a line."""
    prompted = block.language == "console"
    typed: list[tuple[list[str], list[str]]] = []
    continues = False
    for line in block.text.splitlines():
        if continues:
            typed[-1][0].append(line)
        elif prompted and not line.startswith(_PROMPT):
            assert typed, f"{block}: what is printed stands above the first command"
            typed[-1][1].extend([line] if line.strip() else [])
            continue
        elif prompted or (line.strip() and not line.startswith("#")):
            typed.append(([line.removeprefix(_PROMPT)], []))
        else:
            continue
        continues = line.endswith("\\")
    return [Command(_REMARK.sub("", "\n".join(lines)), tuple(printed)) for lines, printed in typed]


def first_unseen(printed: Sequence[str], output: str) -> str | None:
    """The first line of `printed` that an output lacks; None if it has all, in this order.

    Numbers, instants, hashes and one-time codes may differ, and spaces too.  A page shows a table
    as a terminal does; in a pipe it has no frame.
    """
    lines = iter([shape(line) for line in output.splitlines()])
    for line in printed:
        parts = [re.escape(part.strip(" ,")) for part in shape(line).split(ANYTHING)]
        pattern = re.compile(".*".join(parts))
        if line.strip() != ANYTHING and not any(pattern.fullmatch(each) for each in lines):
            return line
    return None


def shape(line: str) -> str:
    """A line without the frame of a table, with `#` for numbers, instants, hashes and codes."""
    text = re.sub(r"[\s│┃─━]+", " ", _VARIABLE.sub("#", line)).strip()
    return re.sub(r"#(?:[ ,]+#)+", "#", text)
