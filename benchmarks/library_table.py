"""The comparisons of libraries with our own code as tables.  Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks import machine

_CLIENTS = {
    "ours": "ours, httpx",
    "asynchronous": "`InfluxDBClientAsync`",
    "blocking": "`InfluxDBClient` in threads",
}
_REQUESTS = {
    "health": "health",
    "buckets": "list buckets",
    "create": "create a bucket",
    "delete": "delete by predicate",
    "write_small": "write 1 kB of lines",
    "write_large": "write 5 MB of lines",
}
_SERVERS = {"ours": "ours, asyncio", "prometheus_client": "`start_http_server`"}
_PUBLISHERS = {"ours": "ours", "paho": "paho-mqtt", "aiomqtt": "aiomqtt"}
_Figures = Mapping[str, Any]


def of(document: _Figures) -> str:
    """A table a comparison, and what they were measured on."""
    parts: list[str] = []
    if clients := document.get("influxdb_client"):
        parts += ["", *_table("InfluxDB", _CLIENTS.values(), _client_rows(clients))]
    if publishers := document.get("mqtt_clients"):
        parts += ["", *_table("MQTT", _PUBLISHERS.values(), _publisher_rows(publishers))]
    if servers := document.get("metrics_server"):
        parts += ["", *_table("page for Prometheus", _SERVERS.values(), _server_rows(servers))]
    return "\n".join([*parts, "", _made(document), ""]).lstrip()


def _table(
    title: str, columns: Iterable[str], rows: Iterator[tuple[str, list[str]]]
) -> Iterator[str]:
    names = list(columns)
    yield f"| {title} | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for name, cells in rows:
        yield f"| {name} | {' | '.join(cells)} |"


def _client_rows(clients: _Figures) -> Iterator[tuple[str, list[str]]]:
    each = [clients[name] for name in _CLIENTS]
    for name, text in _REQUESTS.items():
        costs = [figures["requests"][name] for figures in each]
        cells = [f"{_number(figures['p50'])} / {_number(figures['cpu_ms'])}" for figures in costs]
        yield f"{text}, median / CPU, ms", cells
    held = [f"{figures['held_after_large_writes_mib']:.0f}" for figures in each]
    yield "memory held after ten large writes until a collection, MiB", held
    yield "sockets after `close`", [f"{figures['sockets_after_close']}" for figures in each]
    stopped = [figures["cancelled_write"] for figures in each]
    cells = [f"{figures['returned_ms']:.1f} / {figures['sockets_later']}" for figures in stopped]
    yield "a cancelled write returns after ms / leaves sockets", cells
    limits = [f"{figures['limit_of_0.3_s_took_s']:.1f}" for figures in each]
    yield "a limit of 0.3 s for one request ends it after s", limits
    costs = [figures["import"] for figures in each]
    cells = [
        f"{figures['cpu_ms']:.0f} / {figures['mib']:.0f} / {figures['modules']}"
        for figures in costs
    ]
    yield "import: CPU-ms / MiB / modules", cells
    for case in sorted(each[0]["errors"]):
        yield f"error: {case}", [f"`{figures['errors'][case]}`" for figures in each]
    yield (
        "error: certificate of a stranger",
        [f"`{figures['tls']['stranger']}`" for figures in each],
    )
    warned = ["; ".join(figures["resource_warnings"]) or "none" for figures in each]
    yield "warnings", warned


def _publisher_rows(publishers: _Figures) -> Iterator[tuple[str, list[str]]]:
    each = [publishers[name] for name in _PUBLISHERS]
    yield "a message of 2.5 kB at QoS 1, CPU, µs", [_number(figures["cpu_us"]) for figures in each]
    yield (
        "the same, of ten thousand in a row, µs",
        [_number(figures["wall_us"]) for figures in each],
    )


def _server_rows(servers: _Figures) -> Iterator[tuple[str, list[str]]]:
    each = [servers[name] for name in _SERVERS]
    pages = [
        f"{_number(figures['scrape_ms']['p50'])} / {_number(figures['scrape_cpu_ms'])}"
        for figures in each
    ]
    yield "a page, median / CPU, ms", pages
    yield "stopping when idle, ms", [f"{figures['stop']['stop_ms']:.1f}" for figures in each]
    beside = [figures["beside_silent_clients"] for figures in each]
    yield "threads beside 100 silent clients", [f"{figures['threads']}" for figures in beside]
    yield "connections of them at once", [f"{figures['connections']}" for figures in beside]
    yield "connections of them after 7 s", [f"{figures['connections_later']}" for figures in beside]
    ends = [figures["stop"] for figures in beside]
    cells = [f"{figures['threads_left']} / {figures['connections_left']}" for figures in ends]
    yield "threads / connections left after stopping beside them", cells


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _made(document: _Figures) -> str:
    parts = document["parts"].values()
    commits = ", ".join(sorted({figures["commit"] for figures in parts}))
    busy = max(figures["load_before"] for figures in parts)
    return (
        f"Machine: {machine.in_words(document['machine'])}; commit {commits}; load average when a"
        f" part began: {busy:.2g} at most."
    )
