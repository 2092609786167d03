"""Keeps what NATS sends to a session at QoS 1 within what it can track for that session.

NATS limits the unacknowledged messages of a session, and those of each of its QoS 1 filters, to one
and the same number.  Several filters together may therefore be sent more than the session can
track; what exceeds it is dropped within the server, where it counts as delivered.  It would come
again after `ack_wait`, when it has long been too old.  So each filter gets a share of the number,
and one more share is left for retained messages, which count for the session and for no filter.
Source: nats-server 2.15, server/mqtt.go, trackPublish and trackPublishRetained.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import structlog

from broker.backends.nats.auth_service import AuthService
from broker.backends.nats.mqtt_sessions import MESSAGES
from broker.clock import Clock
from broker.errors import Unavailable

CHECK_EVERY_S = 2.0
FIRST_CHECK_S = 0.2
_NO_CONSUMER = 10149
"""Code of an update whose consumer has gone meanwhile."""

log = structlog.get_logger()


async def watch(service: AuthService, clock: Clock) -> None:
    """Divide the limit of every session among its filters, also of new ones, until cancelled."""
    limit = 0
    while True:
        await clock.sleep(CHECK_EVERY_S if limit else FIRST_CHECK_S)
        try:
            limit = limit or await session_limit(service)
            await share_out(service, limit)
        except Unavailable:
            limit = 0  # logged where the service connects again


async def session_limit(service: AuthService) -> int:
    """Ask the server how many unacknowledged messages a session may have; raises Unavailable."""
    response = await service.query_server("VARZ")
    try:
        return int(response["data"]["mqtt"]["max_ack_pending"])
    except (KeyError, TypeError, ValueError) as exc:
        raise Unavailable(f"nats-server listed its settings in another form: {exc}") from exc


async def share_out(service: AuthService, limit: int) -> None:
    """Divide the limit of each session among its QoS 1 filters.  limit: see `session_limit`.

    Filters whose limit is right already are left alone.  Raises Unavailable.
    """
    sessions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for consumer in await _consumers(service):
        session, _, _ = str(consumer["durable_name"]).partition("_")
        sessions[session].append(consumer)
    for consumers in sessions.values():
        most = share(limit, len(consumers))
        for consumer in consumers:
            if consumer.get("max_ack_pending") != most:
                await _update(service, consumer | {"max_ack_pending": most})


def share(limit: int, filters: int) -> int:
    """Return the unacknowledged messages of each of a session's filters; at least one."""
    return max(limit // (filters + 1), 1)


async def _consumers(service: AuthService) -> Sequence[dict[str, Any]]:
    """List the configuration of each consumer, one for each QoS 1 filter of a session."""
    consumers: list[dict[str, Any]] = []
    while True:
        body = {"offset": len(consumers)}
        response = await service.request(f"$JS.API.CONSUMER.LIST.{MESSAGES}", body)
        page = response.get("consumers") or []  # none, too, before the first client has connected
        consumers += [consumer["config"] for consumer in page]
        if not page or len(consumers) >= response["total"]:
            return [consumer for consumer in consumers if "durable_name" in consumer]


async def _update(service: AuthService, consumer: dict[str, Any]) -> None:
    """Change a consumer's configuration; one that has gone meanwhile stays gone."""
    name = consumer["durable_name"]
    body = {"stream_name": MESSAGES, "config": consumer, "action": "update"}
    response = await service.request(f"$JS.API.CONSUMER.DURABLE.CREATE.{MESSAGES}.{name}", body)
    error = response.get("error")
    if error is not None and error.get("err_code") != _NO_CONSUMER:
        log.warning(
            "session's limit was not set",
            filter=consumer.get("filter_subject"),
            reason=error.get("description"),
        )
