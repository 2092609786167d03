"""The probes' results as the table of docs/security.md.  Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

BEGIN = "<!-- the table is written by the probes -->"
END = "<!-- end of the table -->"

NEEDS = frozenset(
    {"probes", "revoke_ms", "offline_sessions", "expiry_s", "rebuild_mosquitto_s", "callout_ms"}
)
"""Of the results; what is of one suite is there with it."""


def of(results: Mapping[str, Any]) -> str:
    """One line a goal."""
    head = ["| what | goal | measured |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in _rows(results))])


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    revoked = results["revoke_ms"]
    yield (
        "what everybody asks, hears and says, over HTTP and on both brokers",
        "nothing that is not allowed",
        f"{results['allowed']} of {results['probes']:,} probes",
    )
    yield "revoke to silence, MQTT on NATS", "500 ms", _spread(revoked["mqtt"])
    yield "revoke to silence, MQTT on Mosquitto", "500 ms", _spread(revoked["mqtt_mosquitto"])
    yield "revoke to silence, a stream over HTTP", "1,000 ms", _spread(revoked["http"])
    yield (
        "what a durable session that was away at the revoke gets when it is back",
        "nothing",
        f"{results['offline_session_messages']} messages",
    )
    yield (
        "expiry, later than its time, with the API up and stopped",
        "2 s",
        f"{max(results['expiry_s'].values()):g} s",
    )
    yield (
        "the broker's data deleted, until all have their rights again",
        "10 s",
        f"NATS {results['rebuild_s']:g} s, Mosquitto {results['rebuild_mosquitto_s']:g} s",
    )
    yield (
        "a connect request at NATS, under 1,000 samples/s and ten readers of history",
        "200 ms",
        _spread(results["callout_ms"]),
    )
    if fuzz := results.get("fuzz"):
        tries = sum(each["tries"] for each in fuzz.values())
        least_s = min(each["s"] for each in fuzz.values())
        yield (
            f"{len(fuzz)} decoders, any bytes and damaged ones",
            "30 min each, no crash, no hang",
            f"{least_s / 60:.0f} min each, {tries:,} tries",
        )


def _spread(measured: Mapping[str, float]) -> str:
    return f"p50 {measured['p50']:g}, p99 {measured['p99']:g} ms of {measured['trials']:g} trials"


def put_into(page: str, results: Mapping[str, Any]) -> str:
    """The page with the table between its marks made new."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{of(results)}\n\n{END}{after}"
