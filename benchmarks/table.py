"""The results as a table: each goal, what was measured, and whether that meets it.  Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine

BEGIN = "<!-- the table is written by `make bench` -->"
END = "<!-- end of the table -->"
_CHAIN = ("gateway", "broker", "recorder", "store")
_COSTS = (("own", "ten", 2.0, 6.0), ("shared", "ten", 1.0, 3.0))
_COSTS_OF_ONE = (("own", "one", 3.0, 8.5), ("shared", "one", 2.5, 5.0))
_HELD = (("own", 110_000), ("shared", 140_000), ("many", 100_000))
_RATIOS = (("own", 5.0), ("shared", 10.0))
TELEGRAF_GOALS = (
    ("own", "ten", 5.0),
    ("shared", "ten", 10.0),
    ("own", "one", 4.0),
    ("shared", "one", 6.0),
)
"""How many times cheaper than Telegraf's our whole chain should be, by stamps and documents."""
_LATENCIES = (("p50", 4.0), ("p99", 10.0))
_HISTORIES = (("influxdb", 500.0), ("duckdb", 150.0))
_ASKED = {"": "one signal", "own_stream_": "ten streams", "own_signal_": "ten signals of a stream"}
"""What ten readers of history ask for, by what precedes its figures."""


@dataclass(frozen=True, slots=True)
class Row:
    """One goal.  measured: None where it was not, or where nothing held."""

    what: str
    goal: str
    measured: str | None
    met: bool

    def text(self) -> str:
        """A line of the table."""
        verdict = "-" if self.measured is None else "yes" if self.met else "**no**"
        return f"| {self.what} | {self.goal} | {self.measured or '-'} | {verdict} |"


def of(document: Mapping[str, Any]) -> str:
    """The whole table, and what it was measured on."""
    head = ["| what | goal | measured | met |", "|---|---|---|---|"]
    rows = [row.text() for row in _rows(document)]
    return "\n".join([*head, *rows, "", *_parts(document), "", _made(document), ""])


def put_into(path: Path, document: Mapping[str, Any]) -> None:
    """Replace the table that stands between the marks of a page."""
    put_text_into(path, of(document))


def put_text_into(path: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def _rows(document: Mapping[str, Any]) -> Iterator[Row]:
    for stamps, documents, own_two, chain in (*_COSTS, *_COSTS_OF_ONE):
        costs = document.get("ours", {}).get(stamps, {}).get(documents, {})
        what = f"{stamps} time stamps, {documents} a document, CPU-s per million"
        yield _most(f"gateway + recorder, {what}", own_two, _sum(costs, ("gateway", "recorder")))
        yield _most(f"whole chain, {what}", chain, _sum(costs, _CHAIN))
    for stamps, least in _RATIOS:
        ratio = document.get("ratio", {}).get(stamps)
        yield _least(f"times cheaper than the plain chain, {stamps} time stamps", least, ratio)
    for stamps, documents, least in TELEGRAF_GOALS:
        ratio = document.get("ratio", {}).get("telegraf", {}).get(stamps, {}).get(documents, {})
        what = f"{stamps} time stamps, {documents} a document"
        yield _least(f"times cheaper than Telegraf, whole chain, {what}", least, ratio.get("chain"))
    for name, values in _HELD:
        what = "2,000 streams of 5 signals and more" if name == "many" else f"{name} time stamps"
        rate = document.get("held_values_per_s", {}).get(name)
        yield _least(f"values/s held with four zeros for 60 s, {what}", values, rate)
    for name, most in _LATENCIES:
        taken = document.get("latency_ms", {}).get(name)
        yield _most(f"added latency {name}, 1,000 values/s, ms", most, taken)
    for store, most in _HISTORIES:
        times = document.get("history_ms", {}).get(store, {})
        for case, window in _ASKED.items():
            what = f"a day thinned to 1,000 points, 10 readers of {window}, p99 on {store}, ms"
            yield _most(what, most, times.get(f"{case}p99"))


def _sum(costs: Mapping[str, float], parts: tuple[str, ...]) -> float | None:
    if not costs:
        return None
    return sum(costs[f"{part}_cpu_s_per_million"] for part in parts)


def _most(what: str, goal: float, measured: float | None) -> Row:
    shown_value = None if measured is None else _number(measured)
    return Row(what, f"≤ {_number(goal)}", shown_value, measured is not None and measured <= goal)


def _least(what: str, goal: float, measured: float | None) -> Row:
    shown_value = None if measured is None else _number(measured)
    return Row(what, f"≥ {_number(goal)}", shown_value, measured is not None and measured >= goal)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    """What each part of each chain cost, and the steps of the latency."""
    yield "| CPU-s per million values stored | gateway | broker | recorder | store | source |"
    yield "|---|---|---|---|---|---|"
    chains = {
        f"{stamps} time stamps, {documents} a document": costs
        for stamps, runs in document.get("ours", {}).items()
        for documents, costs in runs.items()
    }
    if "tutorial" in document:
        chains["plain tutorial chain"] = document["tutorial"]
    for name, costs in chains.items():
        cells = [_number(costs[f"{part}_cpu_s_per_million"]) for part in (*_CHAIN, "source")]
        yield f"| {name} | {' | '.join(cells)} |"
    yield from _peers(document)
    delays = document.get("latency_ms", {})
    if delays:
        yield ""
        yield "| step of the latency, ms | p50 | p99 |"
        yield "|---|---|---|"
        beside = {"(beside it: 8 kB written and synced)": delays["fsync"]}
        for name, taken in (delays["steps"] | beside).items():
            yield f"| {name} | {_number(taken['p50'])} | {_number(taken['p99'])} |"


def _peers(document: Mapping[str, Any]) -> Iterator[str]:
    """Telegraf and ours in turn: what each part cost, and how many times ours is cheaper."""
    runs = document.get("peers", {}).get("telegraf", {})
    if not runs:
        return
    yield ""
    yield "| in turn, CPU-s per million | gateway | broker | recorder | store | pair | chain |"
    yield "|---|---|---|---|---|---|---|"
    for stamps, settings in runs.items():
        for documents, costs in settings.items():
            what = f"{stamps} time stamps, {documents} a document"
            ratios = document["ratio"]["telegraf"][stamps][documents]
            yield _peer(f"ours, {what}", costs["ours"], None)
            yield _peer(f"Telegraf, {what}", costs, ratios)
            yield _peer(f"Telegraf tuned, {what}", costs["tuned"], ratios["tuned"])


def _peer(name: str, costs: Mapping[str, Any], ratios: Mapping[str, float] | None) -> str:
    """ratios: how many times ours is cheaper, empty where a run lost samples; None for ours."""
    cells = [_number(costs[f"{part}_cpu_s_per_million"]) for part in _CHAIN]
    for some, parts in (("pair", ("gateway", "recorder")), ("chain", _CHAIN)):
        cells.append(_number(_sum(costs, parts) or 0.0))
        if ratios is not None:
            cells[-1] += f", {ratios[some]:.2g} times" if some in ratios else ", not comparable"
    return f"| {name} | {' | '.join(cells)} |"


def _made(document: Mapping[str, Any]) -> str:
    description = machine.in_words(document.get("machine", {}))
    parts = document.get("parts", {})
    commits = ", ".join(sorted({each["commit"] for each in parts.values()}))
    short = ", ".join(sorted(name for name, each in parts.items() if each["quick"]))
    loops = sorted(each["loop_ms"] for each in parts.values() if "loop_ms" in each)
    loop = " to ".join(dict.fromkeys(_number(each) for each in (loops[:1] + loops[-1:])))
    busy = max((each["load_before"] for each in parts.values()), default=0.0)
    return (
        f"Machine: {description}; commit {commits}."
        f"{f' A million additions in Python took {loop} ms.' if loop else ''}"
        f" Load average when a part began, the part before it included: {_number(busy)} at most."
        f"{f' Measured in small (`--quick`): {short}.' if short else ''}"
    )
