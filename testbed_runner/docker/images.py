"""The images of one site at Docker's engine, each under a name of ours, its digest in it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from docker.api import APIClient

from broker.deployments.life import EndCause
from broker.errors import Invalid
from testbed_runner.docker import image_archive
from testbed_runner.docker.client import DockerClient, EngineRefused
from testbed_runner.port import CannotStart, EngineAway, ImageWanted

ARCHIVE, REGISTRY = "archive", "registry"
NOT_FOUND = 404
_NOT_RUNNABLE = "deploy it to a site of this architecture, or build the image for this one"


class SiteImages:
    """The images of one site.

    An archive is written to a folder first, and read there, so that what the engine loads is what
    was checked.
    """

    def __init__(self, site: str, folder: Path, commands: DockerClient, *, url: str) -> None:
        """folder: for archives that arrive; emptied of what a runner before this one has left."""
        self._name = f"testbed-{site}"
        self._commands = commands
        self._slow = DockerClient(url, timeout_s=None)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            left.unlink()

    def name(self, digest: str) -> str:
        """The name of an image at the engine."""
        return f"{self._name}:{digest.removeprefix('sha256:')}"

    async def inspected(self, image: ImageWanted) -> Mapping[str, Any] | None:
        """The engine's description of an image, None if it is not at the site."""
        try:
            inspected: Mapping[str, Any] = await self._commands.call(
                APIClient.inspect_image, self.name(image.digest)
            )
        except EngineRefused as exc:
            if exc.status == NOT_FOUND:
                return None
            raise EngineAway(f"Docker does not say whether it has an image: {exc}") from exc
        return inspected

    async def fetch(
        self, image: ImageWanted, archive: AsyncIterator[bytes] | None, architecture: str
    ) -> None:
        """Bring an image to the engine.  architecture: of the engine.  Raises CannotStart."""
        if await self.inspected(image) is not None:
            return
        if image.kind == ARCHIVE and archive is not None:
            await self._fetch_archive(image, archive, architecture)
        elif image.kind == REGISTRY:
            await self._pull(image)
        else:
            raise CannotStart(
                f"this site runs images, and no {image.kind}",
                cause=EndCause.IMAGE,
                hint="deploy it to a site that runs projects, or build an image of it",
            )
        inspected = await self.inspected(image)
        if inspected is None:
            raise CannotStart(
                f"Docker took the image {image.digest}, and does not list it",
                cause=EndCause.IMAGE,
                hint="look at Docker's log on the site",
            )
        _check_architecture(str(inspected["Architecture"]), architecture)

    async def _fetch_archive(
        self, image: ImageWanted, archive: AsyncIterator[bytes], architecture: str
    ) -> None:
        with tempfile.TemporaryFile(dir=self._folder) as file:
            await _written(file, archive)
            try:
                checked = await asyncio.to_thread(image_archive.opened, file, image.digest)
            except Invalid as exc:
                raise CannotStart(
                    f"the archive of its image is not right: {exc}",
                    cause=EndCause.IMAGE,
                    hint="push it again",
                ) from exc
            _check_architecture(checked.architecture, architecture)
            await self._said(APIClient.load_image, checked.pieces(self.name(image.digest)))

    async def _pull(self, image: ImageWanted) -> None:
        repository = image.reference.partition("@")[0]
        reference = f"{_untagged(repository)}@{image.digest}"
        await self._said(APIClient.pull, reference, stream=True, decode=True)
        name, _, tag = self.name(image.digest).partition(":")
        await self._commands.call(APIClient.tag, reference, name, tag)

    async def _said(self, method: Any, *args: Any, **options: Any) -> None:
        """Call what answers with a stream of sentences; raises CannotStart for one of an error."""

        def call(api: APIClient) -> str:
            for said in method(api, *args, **options) or ():
                if isinstance(said, dict) and (error := said.get("error")):
                    return str(error)
            return ""

        try:
            error = await self._slow.call(call)
        except EngineRefused as exc:
            error = exc.message
        if "no space left on device" in error:
            raise EngineAway("Docker's disk is full", hint="free some of it")
        if error:
            raise CannotStart(
                f"Docker did not take its image: {error[:300]}",
                cause=EndCause.IMAGE,
                hint="does `docker load` or `docker pull` take it on the site?",
            )

    async def prune(self, keep: Iterable[str]) -> int:
        """Remove the images of this site but those with these digests; returns their bytes."""
        needed = {self.name(digest) for digest in keep}
        images = await self._commands.call(APIClient.images, self._name)
        freed = 0
        for image in images:
            names = [name for name in image["RepoTags"] or () if name.startswith(f"{self._name}:")]
            if not needed.intersection(names):
                freed += await self._removed(image, names)
        return freed

    async def _removed(self, image: Mapping[str, Any], names: Iterable[str]) -> int:
        """Remove an image, unless a container or somebody else's name holds it."""
        others = set(image["RepoTags"]) - set(names)
        references = [] if others else list(image["RepoDigests"] or ())
        for name in (*names, *references):
            try:
                await self._commands.call(APIClient.remove_image, name)
            except EngineRefused as exc:
                if exc.status == NOT_FOUND:
                    continue  # the name before was the last one
                return 0  # a container is made of it
        return 0 if others else int(image["Size"])

    def close(self) -> None:
        """Let go of the connection."""
        self._slow.close()


async def _written(file: BinaryIO, archive: AsyncIterator[bytes]) -> None:
    """Write an archive to a file; raises EngineAway if the disk is full."""
    try:
        async for piece in archive:
            await asyncio.to_thread(file.write, piece)
    except OSError as exc:
        raise EngineAway(f"the image cannot be written to the site: {exc.strerror}") from exc


def _check_architecture(of_image: str, of_site: str) -> None:
    if of_image != of_site:
        raise CannotStart(
            f"its image is for {of_image}, and the site is {of_site}",
            cause=EndCause.IMAGE,
            hint=_NOT_RUNNABLE,
        )


def _untagged(repository: str) -> str:
    """The name of a repository without a tag; its host may have a port."""
    folder, slash, name = repository.rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}"
