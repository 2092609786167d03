"""Looks at Docker's engine as a site: its version, its room, and whether it protects."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docker.api import APIClient

from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from testbed_runner import netns
from testbed_runner.docker.canary import Canary
from testbed_runner.docker.client import DockerClient, EngineRefused
from testbed_runner.port import EngineAway, SiteState

LEAST_VERSION = (20, 10)
LEAST_FREE_BYTES = 1024**3
"""Free bytes of the engine's disk below which a site takes no work."""
AGAIN_AFTER_S = 60.0
"""Time until a site that lacks a protection is tried again."""
LIMITS: Mapping[str, str] = {
    "MemoryLimit": "a limit of memory",
    "SwapLimit": "a limit of swap",
    "PidsLimit": "a limit of processes",
    "CpuCfsQuota": "a limit of the processor",
}
"""Fields of the engine's answer -> what it can hold a container to."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class SiteLook:
    """An engine's description of itself, and the result of looking at it."""

    def __init__(self, client: DockerClient, canary: Canary, clock: Clock) -> None:
        self._client, self._canary, self._clock = client, canary, clock
        self._tried: tuple[str, str] | None = None
        """The engine that the canary was tried on last, and what it lacks, as a sentence."""
        self._tried_ns = 0

    async def state(self) -> SiteState:
        """The site as it is now; raises EngineAway."""
        engine = await self._asked()
        reason = next(reasons(engine, netns.may_enter()), "") or await self._lacks(engine)
        return SiteState(
            version=f"Docker {engine['ServerVersion']}",
            architecture=_architecture(engine),
            takes_work=not reason,
            reason=reason,
            cpu=float(engine["NCPU"]),
            memory_bytes=int(engine["MemTotal"]),
        )

    async def architecture(self) -> str:
        """The architecture of the engine, such as amd64; raises EngineAway."""
        return _architecture(await self._asked())

    def images(self) -> frozenset[str]:
        """The digests of images of its own."""
        return self._canary.images

    async def _asked(self) -> Mapping[str, Any]:
        try:
            engine: Mapping[str, Any] = await self._client.call(APIClient.info)
        except EngineRefused as exc:
            raise EngineAway(f"Docker does not say what it is: {exc.message}") from exc
        return engine

    async def _lacks(self, engine: Mapping[str, Any]) -> str:
        """A sentence about the protections that lack; tried once for each engine."""
        identity = f"{engine['ID']} {engine['ServerVersion']} {engine['KernelVersion']}"
        passed_s = (self._clock.monotonic_ns() - self._tried_ns) / NS_PER_S
        if self._tried is not None and self._tried[0] == identity:
            lacks = self._tried[1]
            if not lacks or passed_s < AGAIN_AFTER_S:
                return lacks
        try:
            faults = await self._canary.faults(_architecture(engine))
            lacks = f"it lacks protections: {', '.join(faults)}" if faults else ""
        except Unavailable as exc:
            lacks = str(exc)
        self._tried, self._tried_ns = (identity, lacks), self._clock.monotonic_ns()
        return lacks


def reasons(engine: Mapping[str, Any], not_entered: str) -> Iterator[str]:
    """Why a site takes no work, by what its engine says, as sentences.

    not_entered: why the runner may not enter networks of containers, empty if it may.
    """
    version = str(engine["ServerVersion"])
    if version_numbers(version) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        yield f"its Docker {version} is too old: {least} is the oldest that will do"
    if engine["OSType"] != "linux":
        yield f"its Docker runs containers of {engine['OSType']}, and prototypes are Linux programs"
    options = ",".join(engine.get("SecurityOptions") or ())
    if "name=seccomp" not in options:
        yield "its Docker cannot filter system calls: the kernel lacks seccomp"
    if "name=rootless" in options:
        yield "its Docker runs without root, so that no listener can be made for a container"
    lacking = [what for field, what in LIMITS.items() if not engine.get(field)]
    if lacking:
        yield f"its kernel does not offer {', '.join(lacking)}"
    if not_entered:
        yield not_entered
    free = _free_bytes(Path(str(engine["DockerRootDir"])))
    if free is not None and free < LEAST_FREE_BYTES:
        root = engine["DockerRootDir"]
        yield f"its disk is nearly full: {free // 1024**2} MiB are free in {root}"


def version_numbers(text: str) -> tuple[int, ...]:
    """The first two numbers of a version, such as (20, 10); (0, 0) for a text without any."""
    numbers = [int(each) for each in re.findall(r"\d+", text)[:2]]
    return (*numbers, 0, 0)[:2]


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:  # on another machine, or not ours to see
        return None


def _architecture(engine: Mapping[str, Any]) -> str:
    machine = str(engine["Architecture"])
    return _ARCHITECTURES.get(machine, machine)
