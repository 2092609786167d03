"""The server's disk: what messages may take of it, and starting again where writing has failed.

NATS closes the door to everybody once its storage is at its cap, as it cannot keep a session, and
stores nothing more once a write has failed, whatever room there is later.
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
"""Of the storage, for messages; the rest is for sessions and what is retained."""
DISK_SHARE = 16
LEAST_BYTES = 16 * 1024**2
LOOK_EVERY_S = 2.0
FIRST_LOOK_S = 0.2
KEPT_S = 20
"""So long messages wait for a reader that is away.  What it then finds is the present, and all that
was before comes again from the spools, behind it."""
ROOM_BYTES = 16 * 1024**2
"""Free before a server whose writing failed is started again: it would fail again sooner."""

log = structlog.get_logger()


def cap(folder: Path, most_bytes: int) -> int:
    """What an embedded server may keep on the disk of a folder: a sixteenth, up to `most_bytes`.

    With less than it has there already it would let nobody in.
    """
    wanted = max(shutil.disk_usage(folder).total // DISK_SHARE, LEAST_BYTES)
    held = sum(one.stat().st_size for one in folder.rglob("*.blk"))
    return max(min(most_bytes, wanted), 2 * held)


async def watch(
    service: AuthService, child: NatsProcess | None, folder: Path, clock: Clock
) -> None:
    """Hold messages to their share, and end a child that cannot write any more, until cancelled.

    Whoever watches the child starts it again.
    """
    failed = False
    bounded = ""  # the server's id, of this start of it
    while True:
        await clock.sleep(LOOK_EVERY_S if bounded else FIRST_LOOK_S)
        try:
            told = await service.query_server("HEALTHZ")
            if told["server"]["id"] != bounded:
                bounded = told["server"]["id"] if await _bound(service) else ""
        except Unavailable:
            continue  # said where it is connected again
        trouble = _trouble(told["data"])
        if trouble and not failed:
            log.error("broker cannot write", reason=trouble)
        elif trouble and child is not None and shutil.disk_usage(folder).free >= ROOM_BYTES:
            log.warning("broker is ended, as its disk has room again")
            await child.stop()
        failed = bool(trouble)


def _trouble(health: Mapping[str, Any]) -> str:
    """Why the server cannot store, empty if it can."""
    return "" if health["status"] == "ok" else str(health.get("error", health["status"]))


async def _bound(service: AuthService) -> bool:
    """Let the oldest messages go beyond their share or age; the server makes their place unbounded.

    Whether that place is there yet.
    """
    found = await service.request(f"$JS.API.STREAM.INFO.{MESSAGES}", {})
    if "config" not in found:
        return False  # made when the first client connects
    most_bytes = (await service.query_server("JSZ"))["data"]["config"]["max_storage"]
    age_ns = KEPT_S * NS_PER_S
    wanted = found["config"] | {
        "max_bytes": int(most_bytes * SHARE),
        "max_age": age_ns,
        "duplicate_window": min(found["config"].get("duplicate_window", age_ns), age_ns),
        "discard": "old",
    }
    if wanted != found["config"]:
        told = await service.request(f"$JS.API.STREAM.UPDATE.{MESSAGES}", wanted)
        if "error" in told:
            log.warning("messages were not bounded", reason=told["error"].get("description"))
    return True
