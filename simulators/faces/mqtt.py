"""A machine's MQTT face: it publishes a JSON document a row to a broker, as a sensor node does.

A document has the row's time in whole microseconds since 1970 UTC under `ts`, and each signal's
value under its name; a signal without a sample in the row is left out.  Quality of service 1, not
retained.  Rows of a broken connection are sent
again on the next, so a broker may get one twice; none is left out.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson
import structlog

from broker.batch import GOOD, NO_SAMPLE
from broker.bus.mqtt_connection import Connection, Login
from broker.clock import Backoff, Clock
from broker.errors import BedError, Unavailable
from broker.settings import BusSettings
from simulators.model import SourceRow

__all__ = ["TIME", "Login", "MqttFace", "publish"]

TIME = "ts"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
TIMEOUT_S = 10.0

log = structlog.get_logger()


class MqttFace:
    """A connection to a broker that is made anew whenever it breaks."""

    def __init__(
        self, url: str, login: Login, topic: str, names: Sequence[str], clock: Clock
    ) -> None:
        """Made by `publish`.  names: of the signals, in the order of a row's values."""
        self._settings = BusSettings(broker=url, ca=None, timeout_s=TIMEOUT_S)
        self._login = login
        self._topic = topic
        self._names = names
        self._clock = clock
        self._connection: Connection | None = None

    async def offer(self, rows: list[SourceRow]) -> None:
        """Publish each row, in order, and return once the broker has acknowledged all.

        Waits for a broker that is away; raises Forbidden if it comes back and refuses the login.
        """
        documents = [self._document(row) for row in rows]
        backoff = Backoff(self._clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
        while True:
            try:
                await self._publish(documents)
            except Unavailable as exc:
                if self._connection is not None:
                    log.warning("broker was lost", url=self._settings.broker, error=str(exc))
                await self.close()
                await backoff.pause()
            else:
                return

    async def _publish(self, documents: Sequence[bytes]) -> None:
        """Publish on the connection, or a new one; raises Forbidden or Unavailable."""
        connection = self._connection or await self.connect()
        acknowledgements = [
            connection.publish(self._topic, document, retain=False) for document in documents
        ]
        await asyncio.wait(acknowledgements, timeout=TIMEOUT_S)
        if not all(each.done() for each in acknowledgements):
            await self.close()  # which ends them all
        errors = [each.exception() for each in acknowledgements]
        error = next(filter(None, errors), None)
        if error is not None:
            raise error

    async def connect(self) -> Connection:
        """Connect; raises Forbidden or Unavailable."""
        client_id = f"simulator-{os.getpid()}"
        connection = Connection(client_id, self._login, self._settings, [], durable=False)
        try:
            await connection.open()
        except BedError:
            await connection.close()
            raise
        self._connection = connection
        return connection

    async def close(self) -> None:
        """Disconnect, if it is connected."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _document(self, row: SourceRow) -> bytes:
        codes = row.quality or (GOOD,) * len(row.values)
        cells = zip(self._names, row.values, codes, strict=True)
        values = {name: value for name, value, code in cells if code != NO_SAMPLE}
        return orjson.dumps({TIME: row.time_ns // 1000} | values)


@asynccontextmanager
async def publish(
    url: str, login: Login, topic: str, names: Sequence[str], clock: Clock
) -> AsyncIterator[MqttFace]:
    """Connect to the broker at `mqtt://host:port`, and disconnect in the end.

    Raises Unavailable if it does not answer, Forbidden if it refuses the login.
    """
    face = MqttFace(url, login, topic, names, clock)
    try:
        await face.connect()
    except Unavailable as exc:
        hint = "--mqtt names a broker that runs, such as Mosquitto"
        raise Unavailable(exc.message, hint=hint) from exc
    try:
        yield face
    finally:
        await face.close()
