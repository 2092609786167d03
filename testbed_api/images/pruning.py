"""Removes images that nothing has needed for long, and files that belong to none."""

import asyncio
from dataclasses import dataclass

import structlog

from broker.clock import DAY_NS, HOUR_S, Clock
from broker.errors import BedError
from testbed_api.domain.audit import AuditContext, AuditEntry, OtherAction
from testbed_api.domain.deployments import PinnedImage
from testbed_api.images.shelf import ImageShelf
from testbed_api.registry.registry import Registry

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePruning:
    """Looks for unused images every hour.

    registry: makes changes with an audit entry alone.  keep_ns: an image stays so long after it was
    pushed, deployed, or part of a deployment.
    """

    registry: Registry
    shelf: ImageShelf
    clock: Clock
    keep_ns: int

    async def run(self) -> None:
        """Remove what is unused until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.shelf.sweep)
                await self.prune()
            except BedError as exc:
                log.warning("unused images were not removed", reason=str(exc), again_in_s=HOUR_S)
            await self.clock.sleep(HOUR_S)

    async def prune(self) -> None:
        """Remove the images that are unused, then the files of none that are a day old."""
        before_ns = self.clock.now_ns() - self.keep_ns
        for organisation, image in await self.registry.images.unused_since(before_ns):
            await self._remove(organisation, image, before_ns)
        old_ns = self.clock.now_ns() - DAY_NS
        old = await asyncio.to_thread(self.shelf.digests_before, old_ns)
        for digest in old - await self.registry.images.digests():
            self.shelf.remove(digest)
            log.warning("an archive of no image was removed", digest=digest)

    async def _remove(self, organisation: str, image: PinnedImage, before_ns: int) -> None:
        facts = {"digest": image.digest, "image": image.name, "pushed_by": image.pushed_by}
        context = AuditContext(
            action=OtherAction.REMOVE_IMAGE,
            target=f"image {image.digest}",
            organisation=organisation,
            entry=AuditEntry(facts),
        )
        async with self.registry.change(context, self.clock) as change:
            unused = {
                (owner, each.digest) for owner, each in await change.images.unused_since(before_ns)
            }
            if (organisation, image.digest) not in unused:
                facts["reason"] = "it was used meanwhile, and stays"
            elif await change.images.remove(organisation, image.digest):
                self.shelf.remove(image.digest)
        log.info("unused image was removed", organisation=organisation, digest=image.digest)
