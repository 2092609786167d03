"""The clock of the machine under test, which a test tells to stand, jump or go back.

The file holds one word: `runs`, `stands`, `again` for the time stamps of the first rows once more,
a number of seconds by which it is set, or `once` and such numbers, of one row each.
"""

from pathlib import Path

from broker.clock import NS_PER_S

MOST_AGAIN = 10_000
CENTURY_S = 100 * 366 * 86_400


class SourceClock:
    """Time stamps of rows, as the file says."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._words: list[str] = []
        self._rows = 0
        """With these words."""
        self._last_ns = 0
        self._first: list[int] = []

    def stamp(self, now_ns: int) -> int:
        """The time stamp of a row that is offered now."""
        words = self._file.read_text().split() if self._file.exists() else ["runs"]
        if words and words != self._words:
            self._words, self._rows = words, 0
        self._last_ns = self._stamp(now_ns)
        self._rows += 1
        return self._last_ns

    def _stamp(self, now_ns: int) -> int:
        word, *more = self._words
        if word == "stands":
            return self._last_ns
        if word == "again":
            return self._first[self._rows % len(self._first)]
        if word == "once":
            return now_ns + (int(more[self._rows]) * NS_PER_S if self._rows < len(more) else 0)
        if word != "runs":
            return now_ns + int(word) * NS_PER_S
        if len(self._first) < MOST_AGAIN:
            self._first.append(now_ns)
        return now_ns
