"""The specs in the ledger: a version of a stream has one spec for ever.

All functions run in a transaction of the ledger.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, insert, select, tuple_

from broker import messages
from broker.errors import Taken
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from testbed_api.recorder import lineage
from testbed_api.recorder.lineage import UnsearchedSpan
from testbed_api.registry.engine import in_chunks
from testbed_api.registry.tables import specs

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

SpecKey = tuple[str, StreamAddress, int]
"""A space, a stream in it, and a version of its spec."""


async def add(
    sql: "AsyncConnection", received: Sequence[tuple[str, StreamSpec]], received_ns: int
) -> list[Taken | None]:
    """Store specs of streams in their spaces for good.

    Returns for each why it was refused, None if it was not.
    """
    keys = [(space, spec.address, spec.version) for space, spec in received]
    stored: dict[SpecKey, str] = {}
    for query in _queries(keys):
        for row in await sql.execute(query):
            stored[_key(row)] = row.document
    rows: dict[SpecKey, dict[str, Any]] = {}
    refusals: list[Taken | None] = []
    for key, (_, spec) in zip(keys, received, strict=True):
        document = messages.encode_spec(spec).decode()
        if key not in stored:
            stored[key] = document
            rows[key] = _row(key, document, received_ns)
        refusals.append(_refusal(spec, document, stored[key]))
    if rows:
        await _note_unsearched(sql, rows)
        await sql.execute(insert(specs), list(rows.values()))
    return refusals


async def read(sql: "AsyncConnection", keys: Collection[SpecKey]) -> dict[SpecKey, StreamSpec]:
    """Versions of the specs of streams in their spaces, of those that have arrived."""
    return {
        _key(row): messages.decode_spec(row.document.encode())
        for query in _queries(keys)
        for row in (await sql.execute(query)).all()
    }


async def _note_unsearched(sql: "AsyncConnection", new: Iterable[SpecKey]) -> None:
    """Note streams that are new to a ledger that took the place of a lost one: search them."""
    whole = await lineage.read(sql)
    if whole is None or whole.lost_ns is None:
        return
    streams = {(space, str(stream)): stream for space, stream, _ in new}
    place = tuple_(specs.c.space, specs.c.stream)
    for chunk in in_chunks(streams):
        rows = await sql.execute(select(specs.c.space, specs.c.stream).where(place.in_(chunk)))
        for row in rows.all():
            streams.pop((row.space, row.stream), None)
    spans = [UnsearchedSpan(key[0], each, None, whole.lost_ns) for key, each in streams.items()]
    await lineage.add_unsearched(sql, spans)


def _queries(keys: Collection[SpecKey]) -> Iterator[Any]:
    """Queries of versions of specs, as many at a time as one statement names."""
    place = tuple_(specs.c.space, specs.c.stream, specs.c.version)
    for chunk in in_chunks(keys):
        named = [(space, str(stream), version) for space, stream, version in chunk]
        yield select(specs).where(place.in_(named))


def _key(row: Row[Any]) -> SpecKey:
    return row.space, StreamAddress.parse(row.stream), row.version


def _row(key: SpecKey, document: str, received_ns: int) -> dict[str, Any]:
    space, stream, version = key
    row = {"space": space, "stream": str(stream), "version": version, "document": document}
    return row | {"received_ns": received_ns}


def _refusal(spec: StreamSpec, document: str, stored: str) -> Taken | None:
    """Why a spec is not the one that is stored under its version; None if it is."""
    if document == stored or messages.decode_spec(stored.encode()) == spec:
        return None
    return Taken(
        f"spec {spec.version} of {spec.address} differs from the one that is kept",
        hint="a spec never changes: register a new version",
    )
