"""The port to a product that runs programs: plain processes, Docker, or Docker Swarm."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from broker.deployments.life import EndCause
from broker.errors import BedError
from broker.prototypes.manifest import PrototypeResources
from broker.settings import Address


class ProductName(StrEnum):
    """The products."""

    PROCESS = "process"
    """Plain processes, which isolate nothing: for code of one's own."""
    DOCKER = "docker"
    SWARM = "swarm"


class EngineAway(BedError):
    """The product does not answer: all that it runs stays as it is, and is looked at again."""


class CannotStart(BedError):
    """A container cannot be had or started, and would not if it were tried again.

    cause: IMAGE, START or SITE.
    """

    def __init__(self, message: str, *, cause: EndCause, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """A product's description of itself.

    takes_work, reason: False with a sentence where it is too old, full, or lacks a protection.
    cpu, memory_bytes: what it can give, in cores and bytes.
    """

    version: str
    architecture: str
    takes_work: bool
    reason: str = ""
    cpu: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWanted:
    """An image to be brought to the site.

    kind: archive, registry or project, as the API says.  reference: its name in a registry, with
    its digest.  digest: `sha256:` and 64 hexadecimal digits: of an image's configuration in an
    archive, of its manifest in a registry, of the packed folder for a project.
    """

    kind: str
    digest: str
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """A container as it is to be started.

    deployment: number of its deployment.  site: the runner that has it; both are labels by which
    it is found again.  environment: without secrets, and without the addresses of the API and the
    broker, which the product adds as the program is to reach them.  files: content of files that
    it finds in SECRETS_FOLDER, by name: its credential and its secrets, which are in memory alone.
    api, broker: the listeners of the testbed that it may reach, and nothing else.
    """

    deployment: int
    site: str
    image: ImageWanted
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    resources: PrototypeResources = field(default_factory=PrototypeResources)


SECRETS_FOLDER = "/run/testbed"
"""Where a container finds the files of its spec; a plain process is told by SECRETS_VARIABLE."""
SECRETS_VARIABLE = "TESTBED_SECRETS"
CREDENTIAL_FILE = "credential"


class ContainerState(StrEnum):
    """The state of a container, as its product says."""

    CREATED = "created"
    """Made, or on its way to run."""
    RUNNING = "running"
    FROZEN = "frozen"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of this site that is there, whoever made it.

    detail: the product's own word, for people.  started_ns: None before its start.  exit_code: as
    the product says it, 128 + signal included; None while it runs.  killed_by_memory: whether the
    kernel ended it, or one of its processes, for its use of memory.  hit_pids: whether it was
    refused a process.  pulling: whether its image is still on the way, on products that fetch it
    themselves.  failure: why it could not be started, None where it could.
    """

    deployment: int
    state: ContainerState
    detail: str = ""
    started_ns: int | None = None
    exit_code: int | None = None
    killed_by_memory: bool = False
    hit_pids: bool = False
    hit_disk: bool = False
    pulling: bool = False
    failure: CannotStart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The use of a container: processor seconds since its start, bytes of memory, processes."""

    cpu_s: float
    memory_bytes: int
    pids: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """Bytes that a program printed, as they came: not cut at line ends, and of any encoding."""

    at_ns: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The traffic through the two listeners of a container, counted since it started.

    is_let_in: whether broker or API have accepted it.  last_out_ns: when it published last, by the
    monotonic clock of the machine; None for never.  lag_s: age of the newest batch that it was
    handed, None without any.
    """

    is_let_in: bool = False
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_out_ns: int | None = None
    lag_s: float | None = None


class Engine(Protocol):
    """A product that runs programs.  All its methods raise EngineAway while it does not answer."""

    product: ProductName

    async def check(self) -> SiteState:
        """Look at the product: version, room, and whether its protections hold, by trying them."""

    async def fetch(self, image: ImageWanted, archive: AsyncIterator[bytes] | None) -> None:
        """Bring an image to the site, and verify its digest; nothing to do if it is there.

        archive: the bytes that the API has, None for an image of a registry.  Raises CannotStart.
        """

    async def has(self, image: ImageWanted) -> bool:
        """Whether the image is at the site."""

    async def start(self, spec: ContainerSpec) -> None:
        """Make and start a container, with nothing but its two listeners; raises CannotStart.

        A container of the same deployment that is there already has ended: it is removed first.
        """

    async def containers(self) -> list[Container]:
        """All containers of this site, also those that a runner before this one has started."""

    async def adopt(self, deployment: int) -> None:
        """Serve the listeners of a container that a runner before this one has started."""

    async def stop(self, deployment: int, within_s: float) -> None:
        """End a container: with SIGTERM, and after `within_s` with SIGKILL.  It stays listed."""

    async def freeze(self, deployment: int) -> None:
        """Hold all processes of a container still."""

    async def thaw(self, deployment: int) -> None:
        """Let the processes of a container go on."""

    async def remove(self, deployment: int) -> None:
        """Remove a container with its networks, volumes and files; ends it if it runs."""

    def log(self, deployment: int, since_ns: int) -> AsyncIterator[LogPiece]:
        """Follow what a container prints from an instant on, until it has ended."""

    async def usage(self, deployment: int) -> Usage | None:
        """The use of a container, None if it does not run."""

    def traffic(self, deployment: int) -> Traffic:
        """The traffic through the listeners of a container."""

    async def prune(self, keep: frozenset[str]) -> int:
        """Remove the images of this site whose digests are not to be kept; returns freed bytes."""

    async def close(self) -> None:
        """Let go of connections and listeners; the containers go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The listeners of the testbed that containers reach, as the runner reaches them.

    api, broker: addresses.  api_tls, broker_tls: whether they speak TLS, which the runner then
    speaks for the containers: these speak plain HTTP and MQTT with their own loopback.
    """

    api: Address
    broker: Address
    api_tls: bool = False
    broker_tls: bool = False
