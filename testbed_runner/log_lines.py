"""The output of a program as lines that may leave its site: bounded, printable, without secrets.

Pure.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from broker.clock import NS_PER_S
from broker.deployments.report import MOST_LINE
from testbed_runner.port import CREDENTIAL_FILE, LogPiece

BYTES_PER_S = 64 * 1024
"""Output of a deployment that is passed on; what is above is dropped, and the lines counted."""
RESUMED_BYTES = BYTES_PER_S // 2
"""Once lines are dropped, so many bytes must be free again before the next one is passed on."""
LEAST_SECRET = 4
"""Characters of a secret below which it is not looked for: it would be found in every line."""
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CUT = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLine:
    """A line of a program's output.

    at_ns: of the piece of output that ended it.  index: its place among the lines of this instant,
    from 1.  text: printable, MOST_LINE characters at most.
    """

    at_ns: int
    index: int
    text: str


class Redaction:
    """Replaces the values of secrets in texts by their names."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        """secrets: name -> value; of one with several lines, each line is looked for.

        Of a credential, the part behind its principal is looked for as well.
        """
        parts: dict[str, str] = {}
        for name, value in secrets.items():
            behind = value.partition(".")[2] if name == CREDENTIAL_FILE else ""
            for part in (value, *value.splitlines(), behind):
                if len(part.strip()) >= LEAST_SECRET:
                    parts.setdefault(part.strip(), f"[secret {name}]")
        self._names = parts
        longest_first = sorted(parts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if parts else None
        self.longest = max(map(len, parts), default=0)
        """Characters of the longest value."""

    def __call__(self, text: str) -> str:
        """The text without the values."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._names[match[0]], text)


def printable(line: bytes, redaction: Redaction) -> str:
    """A line as text: without secrets and colours, what cannot be printed escaped.

    Of a line that a progress bar has written over, the newest state.
    """
    newest = line.rstrip(b"\r").rpartition(b"\r")[2]
    whole = redaction(newest.decode(errors="backslashreplace"))
    text = _COLOURS.sub("", whole).expandtabs(4)
    if not text.isprintable():
        text = "".join(each if each.isprintable() else _escaped(each) for each in text)
    return redaction(text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class LineCutter:
    """Makes lines of pieces of output: redacts them, cuts long ones, drops what comes too fast."""

    def __init__(self, redaction: Redaction, *, skip: tuple[int, int] = (0, 0)) -> None:
        """skip: instant and index of the last line that was passed on before."""
        self._redaction = redaction
        self._skip = skip
        self._rest = b""
        self._is_cut = False
        self._index = 0
        self._at_ns = 0
        self._room = float(BYTES_PER_S)
        self._dropped = 0
        self._most_bytes = 4 * (MOST_LINE + redaction.longest)

    def feed(self, piece: LogPiece) -> list[OutputLine]:
        """The lines that end with a piece."""
        self._begin(piece.at_ns)
        *ends, self._rest = (self._rest + piece.content).split(b"\n")
        if ends and self._is_cut:  # its beginning was passed on
            self._is_cut = False
            ends = ends[1:]
        lines = list(self._passed(ends))
        if len(self._rest) > self._most_bytes:
            if not self._is_cut:
                lines += self._passed([self._rest])
            self._is_cut = True
            self._rest = b""
        return lines

    def end(self) -> list[OutputLine]:
        """The last lines, once the program has ended."""
        rest = [] if self._is_cut or not self._rest else [self._rest]
        self._rest = b""
        return [*self._passed(rest), *self._said_dropped()]

    def _begin(self, at_ns: int) -> None:
        """Come to the instant of a piece; the wall time may have been set back."""
        if at_ns != self._at_ns:
            passed_ns = max(0, at_ns - self._at_ns)
            self._room = min(BYTES_PER_S, self._room + passed_ns * BYTES_PER_S / NS_PER_S)
            self._at_ns, self._index = at_ns, 0

    def _passed(self, lines: Iterable[bytes]) -> Iterator[OutputLine]:
        """The lines for which there is room, and a sentence about those before without any."""
        for line in lines:
            if self._room <= (RESUMED_BYTES if self._dropped else 0):
                self._dropped += 1
                continue
            yield from self._said_dropped()
            self._room -= min(len(line), self._most_bytes) + 1
            yield from self._numbered(self._text(line))

    def _text(self, line: bytes) -> str:
        """The text of a line; of a secret at the place where a long one is cut, nothing stays."""
        text = printable(line[: self._most_bytes], self._redaction)
        if len(line) > self._most_bytes:
            text = text[: max(0, len(text) - self._redaction.longest)] + _CUT
        return text if len(text) <= MOST_LINE else text[: MOST_LINE - 1] + _CUT

    def _said_dropped(self) -> Iterator[OutputLine]:
        """The sentence about lines that were dropped, if there are any."""
        if not self._dropped:
            return
        count, self._dropped = self._dropped, 0
        lines = "1 line was" if count == 1 else f"{count:,} lines were"
        limit = f"it prints more than {BYTES_PER_S // 1024} KiB/s"
        yield from self._numbered(f"{_CUT} {lines} dropped: {limit}")

    def _numbered(self, text: str) -> Iterator[OutputLine]:
        """The line, unless it was passed on before."""
        self._index += 1
        at_ns, index = self._skip
        if self._at_ns != at_ns or self._index > index:
            yield OutputLine(at_ns=self._at_ns, index=self._index, text=text)
