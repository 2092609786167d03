"""Acts on images of prototypes: push an archive, pin one of a registry, list and delete them."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from broker.clock import Clock
from broker.errors import Invalid, Taken, Unknown
from broker.rights import Action
from testbed_api.actions.caller import Caller
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.deployments import REGISTRY, PinnedImage
from testbed_api.domain.equipment import checked_text
from testbed_api.images import registry_client
from testbed_api.images.shelf import ImageShelf
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry

MOST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePush:
    """An archive that is pushed.

    name: by which people know it.  kind: archive or project.  content: its bytes as they come.
    stated_bytes: what they are said to be, None if nobody says.  taken: called after each MiB.
    """

    name: str
    kind: str
    content: AsyncIterator[bytes]
    stated_bytes: int | None
    taken: Callable[[], None]


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image of an organisation, and the deployments that have it now."""

    image: PinnedImage
    deployments: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageActions:
    """Keeps images for organisations, and writes the audit entry of each act."""

    registry: Registry
    shelf: ImageShelf
    registries: frozenset[str]
    quotas: Quotas
    clock: Clock

    async def push(
        self, context: AuditContext, caller: Caller, organisation: str, wanted: ImagePush
    ) -> HeldImage:
        """Take an archive in, check it, and keep it; the same digest again gets the new name.

        Raises Invalid for an archive that is no image, TooMany for a full quota, Unavailable for a
        full disk; then nothing of it stays.
        """
        caller.must(Action.DEPLOY, organisation)
        name = checked_text(wanted.name, "name", MOST_NAME)
        self.quotas.pushing(organisation, await self.registry.images.used_bytes(organisation))
        self.shelf.check_room(wanted.stated_bytes)
        try:
            async with self.shelf.received(wanted.content, wanted.kind, wanted.taken) as pushed:
                image = PinnedImage(
                    digest=pushed.image.digest,
                    name=name,
                    kind=wanted.kind,
                    architecture=pushed.image.architecture,
                    size_bytes=pushed.size_bytes,
                    pushed_ns=self.clock.now_ns(),
                    pushed_by=caller.id,
                )
                async with self.registry.change(context, self.clock) as change:
                    await change.images.add(organisation, image)
                    self.shelf.keep(pushed)  # in the transaction: no removal comes between
        except Invalid as exc:
            raise Invalid(f"{name!r} is not taken: {exc.message}", hint=exc.hint) from exc
        return await self._held(organisation, image.digest)

    async def pin(
        self, context: AuditContext, caller: Caller, organisation: str, reference: str
    ) -> HeldImage:
        """Ask a registry for the digest of an image, which stands for it from then on.

        Raises what `registry_client.resolve` does.
        """
        caller.must(Action.DEPLOY, organisation)
        resolved = await registry_client.resolve(reference, self.registries)
        image = PinnedImage(
            digest=resolved.digest,
            name=reference,
            kind=REGISTRY,
            reference=resolved.reference,
            architecture=resolved.architecture,
            size_bytes=resolved.size_bytes,
            pushed_ns=self.clock.now_ns(),
            pushed_by=caller.id,
        )
        async with self.registry.change(context, self.clock) as change:
            await change.images.add(organisation, image)
        return await self._held(organisation, image.digest)

    async def images(self, caller: Caller, organisation: str) -> Sequence[HeldImage]:
        """The images of an organisation, the newest first."""
        caller.must(Action.WATCH, organisation)
        async with self.registry.snapshot() as registry:
            deployments = await registry.images.deployments(organisation)
            return [
                HeldImage(each, deployments.get(each.digest, ()))
                for each in await registry.images.of_organisation(organisation)
            ]

    async def delete(
        self, context: AuditContext, caller: Caller, organisation: str, digest: str
    ) -> None:
        """Let an organisation hold an image no more; raises Taken while a deployment has it."""
        caller.must(Action.DEPLOY, organisation)
        async with self.registry.change(context, self.clock) as change:
            if await change.images.find(organisation, digest) is None:
                raise _unknown(organisation, digest)
            numbers = (await change.images.deployments(organisation)).get(digest, ())
            if numbers:
                raise Taken(
                    f"deployment {numbers[0]} has the image {digest}",
                    hint=f"stop it first: `testbed deployment stop {numbers[0]}`",
                )
            if await change.images.remove(organisation, digest):
                self.shelf.remove(digest)

    async def _held(self, organisation: str, digest: str) -> HeldImage:
        async with self.registry.snapshot() as registry:
            image = await registry.images.find(organisation, digest)
            numbers = (await registry.images.deployments(organisation)).get(digest, ())
        if image is None:
            raise _unknown(organisation, digest)
        return HeldImage(image, numbers)


def _unknown(organisation: str, digest: str) -> Unknown:
    return Unknown(
        f"{organisation} has no image {digest}", hint="`testbed image list` lists those there"
    )
