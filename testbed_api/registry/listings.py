"""The registry's listings: the organisations that see an equipment, with terms and a sample."""

from typing import Any

import orjson
from sqlalchemy import Row, insert, select

from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry, Listing, Sample
from testbed_api.domain.grants import Offer
from testbed_api.registry import tables
from testbed_api.registry.base import Repository, ending, going_on, span_of


class ListingRepository(Repository):
    """Listings of equipment; a new one ends the one before it, and none is overwritten."""

    async def put(self, listing: Listing, *, by: str, terms: str = "") -> None:
        """Insert a listing, and end the former one of the same equipment at its beginning."""
        table, address, now_ns = tables.listings, listing.equipment, listing.span.from_ns
        to = (
            None
            if listing.organisations is None
            else orjson.dumps(sorted(listing.organisations)).decode()
        )
        self._session.note(listed=address, to="everybody" if to is None else to)
        async with self._session.transaction(write=True) as sql:
            await sql.execute(ending(table, _of(address), by, now_ns))
            row = {"organisations": to, "terms": terms, "sample": _sample_text(listing.sample)}
            span = {"from_ns": now_ns, "until_ns": listing.span.until_ns, "made_by": by}
            await sql.execute(insert(table).values(**_of(address), **row, **span))

    async def end(self, address: EquipmentAddress, *, by: str, now_ns: int) -> None:
        """End the listing of an equipment."""
        self._session.note(listed=address, to="nobody")
        async with self._session.transaction(write=True) as sql:
            await sql.execute(ending(tables.listings, _of(address), by, now_ns))

    async def history(self, address: EquipmentAddress) -> list[Listing]:
        """All listings of an equipment, past ones too, in the order of their making."""
        table = tables.listings
        query = select(table).filter_by(**_of(address)).order_by(table.c.id)
        return [listing_of(row) for row in await self._session.rows(query)]

    async def find(self, address: EquipmentAddress, at_ns: int) -> Offer | None:
        """The listing of an equipment at this instant, None if it is listed to nobody."""
        table = tables.listings
        query = select(table).filter_by(**_of(address)).where(going_on(table, at_ns))
        rows = await self._session.rows(query.order_by(table.c.id.desc()).limit(1))
        return Offer(listing_of(rows[0]), rows[0].terms) if rows else None


def _of(address: EquipmentAddress) -> dict[str, str]:
    return {"organisation": address.organisation, "equipment": address.equipment}


def listing_of(row: Row[Any]) -> Listing:
    """The listing of a row."""
    address = EquipmentAddress(row.organisation, row.equipment)
    to = None if row.organisations is None else frozenset(orjson.loads(row.organisations))
    return Listing(address, to, span_of(row), _sample_of(row.sample))


def _sample_of(text: str | None) -> Sample | None:
    if text is None:
        return None
    space, stream, from_ns, to_ns = orjson.loads(text)
    return Sample(Entry(space, StreamAddress.parse(stream)), from_ns, to_ns)


def _sample_text(sample: Sample | None) -> str | None:
    if sample is None:
        return None
    values = [sample.entry.space, str(sample.entry.address), sample.from_ns, sample.to_ns]
    return orjson.dumps(values).decode()
