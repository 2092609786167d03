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
        costs = [one["requests"][name] for one in each]
        cells = [f"{_number(one['p50'])} / {_number(one['cpu_ms'])}" for one in costs]
        yield f"{text}, median / CPU, ms", cells
    held = [f"{one['held_after_large_writes_mib']:.0f}" for one in each]
    yield "memory held after ten large writes until a collection, MiB", held
    yield "sockets after `close`", [f"{one['sockets_after_close']}" for one in each]
    stopped = [one["cancelled_write"] for one in each]
    cells = [f"{one['returned_ms']:.1f} / {one['sockets_later']}" for one in stopped]
    yield "a cancelled write returns after ms / leaves sockets", cells
    limits = [f"{one['limit_of_0.3_s_took_s']:.1f}" for one in each]
    yield "a limit of 0.3 s for one request ends it after s", limits
    costs = [one["import"] for one in each]
    cells = [f"{one['cpu_ms']:.0f} / {one['mib']:.0f} / {one['modules']}" for one in costs]
    yield "import: CPU-ms / MiB / modules", cells
    for case in each[0]["errors"]:
        yield f"error: {case}", [f"`{one['errors'][case]}`" for one in each]
    yield "error: certificate of a stranger", [f"`{one['tls']['stranger']}`" for one in each]
    warned = ["; ".join(one["resource_warnings"]) or "none" for one in each]
    yield "warnings", warned


def _publisher_rows(publishers: _Figures) -> Iterator[tuple[str, list[str]]]:
    each = [publishers[name] for name in _PUBLISHERS]
    yield "a message of 2.5 kB at QoS 1, CPU, µs", [_number(one["cpu_us"]) for one in each]
    yield "the same, of ten thousand in a row, µs", [_number(one["wall_us"]) for one in each]


def _server_rows(servers: _Figures) -> Iterator[tuple[str, list[str]]]:
    each = [servers[name] for name in _SERVERS]
    pages = [
        f"{_number(one['scrape_ms']['p50'])} / {_number(one['scrape_cpu_ms'])}" for one in each
    ]
    yield "a page, median / CPU, ms", pages
    yield "stopping when idle, ms", [f"{one['stop']['stop_ms']:.1f}" for one in each]
    beside = [one["beside_silent_clients"] for one in each]
    yield "threads beside 100 silent clients", [f"{one['threads']}" for one in beside]
    yield "connections of them at once", [f"{one['connections']}" for one in beside]
    yield "connections of them after 7 s", [f"{one['connections_later']}" for one in beside]
    ends = [one["stop"] for one in beside]
    cells = [f"{one['threads_left']} / {one['connections_left']}" for one in ends]
    yield "threads / connections left after stopping beside them", cells


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _made(document: _Figures) -> str:
    parts = document["parts"].values()
    commits = ", ".join(sorted({one["commit"] for one in parts}))
    busy = max(one["load_before"] for one in parts)
    return (
        f"Machine: {machine.in_words(document['machine'])}; commit {commits}; load average when a"
        f" part began: {busy:.2g} at most."
    )
