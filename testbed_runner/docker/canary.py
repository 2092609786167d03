"""Tries the protections of a site: a container of ours is looked at, and attempts what none may."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from docker.api import APIClient

from broker.clock import Clock
from broker.errors import Unavailable
from broker.prototypes.manifest import MIB, PrototypeResources
from testbed_runner import abuses, container_evidence, hardening
from testbed_runner.abuses import Abuse
from testbed_runner.docker import python_image
from testbed_runner.docker.client import DockerClient, EngineRefused
from testbed_runner.docker.container_config import (
    DEPLOYMENT_LABEL,
    ContainerOrder,
    container_config,
)
from testbed_runner.docker.images import ARCHIVE, SiteImages
from testbed_runner.port import CannotStart, ImageWanted, ProductName
from testbed_runner.secrets_folder import SecretsFolder

NUMBER = 0
"""In place of a deployment's number; those begin at 1."""
ENDED_WITHIN_S = 120.0
POLL_S = 0.1
RESOURCES = PrototypeResources(memory=64 * MIB, cpu=1.0, pids=32, disk=8 * MIB, log=1 * MIB)
LIMITS: Sequence[Abuse] = (
    Abuse(
        name="more disk",
        aim="write more than it may",
        text="with open('/tmp/full', 'wb') as file:\n"
        "    for _ in range(targets['disk'] // 65536 + 1): file.write(bytes(65536))\n"
        "won('written')",
    ),
    Abuse(
        name="more memory",
        aim="take more memory than it may",
        text="os.unlink('/tmp/full') if os.path.exists('/tmp/full') else None\n"
        "content = b'x' * targets['memory']\n"
        "won(len(content))",
    ),
    Abuse(
        name="more processes",
        aim="start more processes than it may",
        text="for _ in range(targets['pids']):\n"
        "    if not os.fork(): time.sleep(60); os._exit(0)\n"
        "won('started')",
    ),
)
"""Tries of the canary's own limits, last, because they leave little for others."""


class Canary:
    """The container of a site that tries its protections; it is gone once it has."""

    def __init__(
        self,
        site: str,
        folder: Path,
        *,
        client: DockerClient,
        images: SiteImages,
        clock: Clock,
    ) -> None:
        """folder: for its image while that is made."""
        self._name = f"testbed-{site}-canary"
        self._site, self._folder = site, folder
        self._client, self._images, self._clock = client, images, clock
        self._image: ImageWanted | None = None

    @property
    def images(self) -> frozenset[str]:
        """The digest of its image, if that is made."""
        return frozenset() if self._image is None else frozenset({self._image.digest})

    async def faults(self, architecture: str) -> list[str]:
        """Names of the protections to which this site holds no container; empty if it holds all.

        architecture: of the engine.  Raises EngineAway, and Unavailable if nothing could be tried.
        """
        try:
            image = await self._fetched(architecture)
            secrets = SecretsFolder(self._folder, "canary")
            files = secrets.write(NUMBER, {"credential": b"of nobody"})
            try:
                return await self._tried(image, files)
            finally:
                secrets.remove(NUMBER)
                secrets.close()
        except (CannotStart, EngineRefused, OSError) as exc:
            raise Unavailable(
                f"its protections cannot be tried: {exc}",
                hint="does `docker run` start a container on it?",
            ) from exc

    async def _fetched(self, architecture: str) -> ImageWanted:
        """Its image, made of this machine's own Python, at the engine."""
        archive = self._folder / "canary.tar"
        try:
            digest = await asyncio.to_thread(python_image.write, archive)
            image = ImageWanted(kind=ARCHIVE, digest=digest)
            await self._images.fetch(image, _pieces(archive), architecture)
        finally:
            archive.unlink(missing_ok=True)
        self._image = image
        return image

    async def _tried(self, image: ImageWanted, secrets: Path) -> list[str]:
        inspected = await self._images.inspected(image)
        if inspected is None:
            raise Unavailable("its own image is gone", hint="the next look makes it again")
        config = container_config(
            ContainerOrder(
                site=self._site,
                deployment=NUMBER,
                image=str(inspected["Id"]),
                image_config=inspected["Config"],
                command=(python_image.PYTHON, "-c", abuses.RUNNER),
                environment={
                    **dict(_variables(inspected["Config"])),
                    "ABUSES": _order([*abuses.ABUSES, *LIMITS]),
                },
                resources=RESOURCES,
                secrets=secrets,
            )
        )
        del config["Labels"][DEPLOYMENT_LABEL]
        await self._remove()
        try:
            create = APIClient.create_container_from_config
            await self._client.call(create, config, self._name)
            await self._client.call(APIClient.start, self._name)
            missing = await self._missing()
            return missing + await self._achieved()
        finally:
            await self._remove()

    async def _missing(self) -> list[str]:
        """The protections that its running container is seen to lack."""
        inspected = await self._client.call(APIClient.inspect_container, self._name)
        evidence = await asyncio.to_thread(container_evidence.read, inspected)
        return [each.name for each in hardening.missing(evidence, ProductName.DOCKER)]

    async def _achieved(self) -> list[str]:
        """The tries that succeeded, once all are over."""
        waited_s = 0.0
        while await self._runs():
            if waited_s > ENDED_WITHIN_S:
                raise Unavailable("its canary did not end", hint="is the machine very busy?")
            await self._clock.sleep(POLL_S)
            waited_s += POLL_S
        printed: bytes = await self._client.call(APIClient.logs, self._name)
        outcomes = [orjson.loads(line) for line in printed.splitlines() if line.startswith(b"[")]
        if len(outcomes) < len(abuses.ABUSES) + len(LIMITS):
            raise Unavailable(
                f"its canary ended early: {printed[-300:].decode(errors='replace')}",
                hint="look at Docker's log on the site",
            )
        return [name for name, succeeded, _ in outcomes if succeeded]

    async def _runs(self) -> bool:
        inspected = await self._client.call(APIClient.inspect_container, self._name)
        return bool(inspected["State"]["Running"])

    async def _remove(self) -> None:
        with suppress(EngineRefused):  # there is none
            await self._client.call(APIClient.remove_container, self._name, v=True, force=True)


def _order(tries: Sequence[Abuse]) -> str:
    """The tries of the program, as it takes them."""
    targets = {
        **abuses.NOWHERE,
        "disk": 2 * RESOURCES.disk,
        "memory": 2 * (RESOURCES.memory + RESOURCES.disk),
        "pids": 2 * RESOURCES.pids,
    }
    texts = [(each.name, each.text) for each in tries]
    return orjson.dumps([targets, texts, abuses.SECONDS]).decode()


def _variables(image_config: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The variables of an image."""
    pairs = (each.partition("=") for each in image_config.get("Env") or ())
    return [(name, value) for name, _, value in pairs]


async def _pieces(path: Path) -> Any:
    """The bytes of a file, as they would arrive."""
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, MIB):
            yield piece
