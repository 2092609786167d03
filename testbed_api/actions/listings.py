"""Acts on listings: show an equipment to organisations, and to none."""

from collections.abc import Collection
from dataclasses import dataclass

from broker.clock import Clock
from broker.errors import Unknown
from broker.namespace import EquipmentAddress
from broker.rights import Action, Listing, Sample, Span
from testbed_api.actions.caller import Caller
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.grants import Offer
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingActions:
    """Changes listings, and writes the audit entry of each act."""

    registry: Registry
    clock: Clock

    async def put(
        self,
        context: AuditContext,
        caller: Caller,
        address: EquipmentAddress,
        organisations: Collection[str] | None,
        *,
        terms: str | None,
        sample: Sample | None,
    ) -> Offer:
        """List an equipment in place of its former listing.

        organisations: None for all.  terms: None for those of the former listing.  Raises Unknown
        for an organisation, a stream or an equipment that is not registered.
        """
        caller.must(Action.SHARE, address)
        await self.registry.equipment.get(address)
        known = {each.id for each in await self.registry.organisations.all()}
        if strangers := sorted(set(organisations or ()) - known):
            raise Unknown(f"there is no organisation {strangers[0]!r}")
        to = None if organisations is None else frozenset(organisations)
        listing = Listing(address, to, Span(self.clock.now_ns()), sample)
        if sample is not None:
            await self.registry.streams.get(sample.entry.address)
        async with self.registry.change(context, self.clock) as change:
            if terms is None:
                former = await change.listings.find(address, listing.span.from_ns)
                terms = "" if former is None else former.terms
            offer = Offer(listing, terms)
            await change.listings.put(offer.listing, by=caller.id, terms=offer.terms)
        return offer

    async def end(self, context: AuditContext, caller: Caller, address: EquipmentAddress) -> None:
        """List an equipment to nobody; grants that were given stay."""
        caller.must(Action.SHARE, address)
        await self.registry.equipment.get(address)
        async with self.registry.change(context, self.clock) as change:
            await change.listings.end(address, by=caller.id, now_ns=self.clock.now_ns())

    async def find(self, caller: Caller, address: EquipmentAddress) -> Offer | None:
        """The listing of an equipment as the caller may know it; None if it is listed to others."""
        caller.must(Action.SEE, address)
        offer = await self.registry.listings.find(address, caller.at_ns)
        mine = address.organisation == caller.organisation
        return offer if mine or address in caller.visible.equipment else None
