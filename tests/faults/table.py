"""The fault suite's results as the table of docs/reliability.md.  Pure but for `put_into`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine

BEGIN = "<!-- the table is written by the fault suite -->"
END = "<!-- end of the table -->"
COUNTERS = ("lost", "duplicated", "wrong", "silent")


def of(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a fault and set-up, and what they were measured on."""
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    heads = ("fault", "set-up", "size", "samples", " / ".join(COUNTERS), "gap ratio", "back, s")
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        counters = " / ".join(str(row[name]) for name in COUNTERS)
        rest = " | ".join("" if row[name] is None else f"{row[name]:g}" for name in _TIMES)
        head = f"| {row['fault']} | {row['setup']} | {row['size']} | {row['offered']:,} |"
        yield f"{head} {counters} | {rest} |"
    measured = [row for row in rows if "machine" in row]
    machines = sorted({machine.in_words(row["machine"]) for row in measured})
    for machine_words in machines:
        of_it = [row for row in measured if machine.in_words(row["machine"]) == machine_words]
        commits = ", ".join(sorted({row["commit"] for row in of_it}))
        days = sorted(row["at"][:10] for row in of_it)
        yield ""
        yield f"{len(of_it)} rows: {machine_words}; commit {commits}; {days[0]} to {days[-1]}."


_TIMES = ("gap_ratio", "recovery_s")


def put_into(page: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the table that stands between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{of(rows)}\n\n{END}{after}", encoding="utf-8")
