"""Limits the disk space of NATS messages, and restarts a server whose writes have failed.

NATS refuses every client once its storage is at its cap, as it cannot store a session, and stores
nothing more once a write has failed, whatever room there is later.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from broker.backends.nats.auth_service import AuthService
from broker.backends.nats.child_process import NatsProcess
from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable

MESSAGES = "$MQTT_msgs"
SHARE = 0.75
"""Share of the storage for messages; the rest is for sessions and retained messages."""
DISK_SHARE = 16
LEAST_BYTES = 16 * 1024**2
CHECK_EVERY_S = 2.0
FIRST_CHECK_S = 0.2
MOST_AGE_S = 20
"""Messages wait this long for a reader that is away; older ones come again from the spools, behind
the current ones."""
ROOM_BYTES = 16 * 1024**2
"""Free space before a server whose writes failed is restarted: with less it would fail again."""

log = structlog.get_logger()


def cap(folder: Path, most_bytes: int) -> int:
    """Return the storage limit of an embedded server: a sixteenth of the disk, up to `most_bytes`.

    Never less than twice what it stores already: below that it would refuse every client.
    """
    share = max(shutil.disk_usage(folder).total // DISK_SHARE, LEAST_BYTES)
    stored = sum(block.stat().st_size for block in folder.rglob("*.blk"))
    return max(min(most_bytes, share), 2 * stored)


async def watch(
    service: AuthService, child: NatsProcess | None, folder: Path, clock: Clock
) -> None:
    """Bound the messages of a server, and stop a child that cannot write any more, until cancelled.

    The task that watches the child starts it again.
    """
    failed = False
    bounded = ""  # the server's id, of this start of it
    while True:
        await clock.sleep(CHECK_EVERY_S if bounded else FIRST_CHECK_S)
        try:
            health = await service.query_server("HEALTHZ")
            if health["server"]["id"] != bounded:
                bounded = health["server"]["id"] if await _bound(service) else ""
        except Unavailable:
            continue  # logged where the service connects again
        error = _write_error(health["data"])
        if error and not failed:
            log.error("broker cannot write", reason=error)
        elif error and child is not None and shutil.disk_usage(folder).free >= ROOM_BYTES:
            log.warning("broker is stopped, as its disk has room again")
            await child.stop()
        failed = bool(error)


def _write_error(health: Mapping[str, Any]) -> str:
    """Return why the server cannot store, empty if it can."""
    return "" if health["status"] == "ok" else str(health.get("error", health["status"]))


async def _bound(service: AuthService) -> bool:
    """Limit size and age of the message stream, which the server makes unbounded.

    Returns False as long as the stream does not exist.
    """
    stream = await service.request(f"$JS.API.STREAM.INFO.{MESSAGES}", {})
    if "config" not in stream:
        return False  # made when the first client connects
    most_bytes = (await service.query_server("JSZ"))["data"]["config"]["max_storage"]
    age_ns = MOST_AGE_S * NS_PER_S
    bounded = stream["config"] | {
        "max_bytes": int(most_bytes * SHARE),
        "max_age": age_ns,
        "duplicate_window": min(stream["config"].get("duplicate_window", age_ns), age_ns),
        "discard": "old",
    }
    if bounded != stream["config"]:
        response = await service.request(f"$JS.API.STREAM.UPDATE.{MESSAGES}", bounded)
        if "error" in response:
            log.warning("messages were not bounded", reason=response["error"].get("description"))
    return True
