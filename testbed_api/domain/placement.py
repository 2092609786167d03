"""Placement: which site runs a deployment that waits, and why another one does not do.  Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from broker.clock import text_of
from testbed_api.domain.deployments import PROJECT, Deployment
from testbed_api.domain.runners import PromisedResources, Runner, RunnerState

_PROCESS = "process"
_MIB = 2**20
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_ROUNDING = 1e-9


class _Obstacle(IntEnum):
    """Why a site does not do; the greater, the nearer it is to doing."""

    LABELS = 1
    PRODUCT = 2
    ARCHITECTURE = 3
    SIZE = 4
    SILENT = 5
    NO_WORK = 6
    QUEUE = 7
    ROOM = 8


@dataclass(frozen=True, slots=True)
class SiteCandidate:
    """A runner, with what it has promised to the deployments that it has."""

    runner: Runner
    promised: PromisedResources = field(default_factory=PromisedResources)


@dataclass(frozen=True, slots=True)
class SiteChoice:
    """Where a deployment goes: a runner, or None with the sentence why none does.

    place: in the queue, from 1 on, of those that wait for one of the same sites; None if placed.
    """

    deployment: int
    runner: str | None
    reason: str = ""
    place: int | None = None


def place(
    waiting: Sequence[Deployment], candidates: Sequence[SiteCandidate], now_ns: int
) -> list[SiteChoice]:
    """Decide where deployments go that wait for a site.

    waiting: in the order in which they came.  A site that suits one that waits for room there takes
    none that came later, so that small ones do not keep a great one waiting for ever.
    """
    promised = {each.runner.id: each.promised for each in candidates}
    reserved: set[str] = set()
    ahead: list[frozenset[str]] = []
    placements = []
    for deployment in waiting:
        sites = [
            SiteCandidate(each.runner, promised[each.runner.id])
            for each in candidates
            if each.runner.opens(deployment.organisation)
        ]
        obstacles = {
            site.runner.id: _obstacle(deployment, site, reserved, now_ns) for site in sites
        }
        free = [site for site in sites if obstacles[site.runner.id] is None]
        if free:
            best = min(free, key=lambda site: (-_free_bytes(site), site.runner.id))
            promised[best.runner.id] = _with(promised[best.runner.id], deployment)
            placements.append(SiteChoice(deployment.id, best.runner.id))
            continue
        suiting = frozenset(
            name
            for name, obstacle in obstacles.items()
            if obstacle and obstacle[0] > _Obstacle.SIZE
        )
        at = 1 + sum(bool(suiting & others) or not (suiting | others) for others in ahead)
        placements.append(SiteChoice(deployment.id, None, _sentence(deployment, obstacles), at))
        ahead.append(suiting)
        reserved |= suiting
    return placements


def _obstacle(
    deployment: Deployment, site: SiteCandidate, reserved: set[str], now_ns: int
) -> tuple[_Obstacle, str] | None:
    """Why a site does not do for a deployment, None if it does."""
    runner, state = site.runner, site.runner.state
    if missing := deployment.labels - runner.labels:
        return _Obstacle.LABELS, f"{runner.id} lacks the label {' and '.join(sorted(missing))}"
    if state is None:
        return _Obstacle.SILENT, f"{runner.id} has not answered yet"
    if unfit := _unfit(deployment, runner.id, state):
        return unfit
    if away := _away(runner, state, now_ns):
        return away
    if runner.id in reserved:
        return _Obstacle.QUEUE, f"others wait for {runner.id} before it"
    return _without_room(deployment, site, state)


def _away(runner: Runner, state: RunnerState, now_ns: int) -> tuple[_Obstacle, str] | None:
    """Why a site takes nothing at all now."""
    if not runner.is_heard_of(now_ns):
        since = text_of(runner.seen_ns or runner.made_ns)
        return _Obstacle.SILENT, f"{runner.id} has not answered since {since}"
    if not state.takes_work:
        return _Obstacle.NO_WORK, f"{runner.id} takes no work: {state.reason or 'it says not why'}"
    return None


def _unfit(deployment: Deployment, name: str, state: RunnerState) -> tuple[_Obstacle, str] | None:
    """Why a site would not do even if it were empty."""
    is_process, kind = state.product == _PROCESS, deployment.image.kind
    if is_process is not (kind == PROJECT):
        wants = (
            "a project needs plain processes" if kind == PROJECT else "an image needs containers"
        )
        return _Obstacle.PRODUCT, f"{name} runs {state.product}, and {wants}"
    wanted, given = (
        _architecture(each) for each in (deployment.image.architecture, state.architecture)
    )
    if wanted and wanted != given:
        return _Obstacle.ARCHITECTURE, f"{name} is {given}, and the image is for {wanted}"
    if deployment.memory_bytes > state.memory_bytes:
        sizes = _mib(deployment.memory_bytes), _mib(state.memory_bytes)
        return _Obstacle.SIZE, f"{name} gives {sizes[1]} of memory, and it needs {sizes[0]}"
    if deployment.cpu > state.cpu + _ROUNDING:
        return _Obstacle.SIZE, f"{name} gives {state.cpu:g} cores, and it needs {deployment.cpu:g}"
    return None


def _without_room(
    deployment: Deployment, site: SiteCandidate, state: RunnerState
) -> tuple[_Obstacle, str] | None:
    """Why a site has no room for a deployment now."""
    free_bytes, free_cpu = _free_bytes(site), state.cpu - site.promised.cpu
    if deployment.memory_bytes > free_bytes:
        sizes = _mib(max(free_bytes, 0)), _mib(deployment.memory_bytes)
        sentence = f"{site.runner.id} has {sizes[0]} of memory free, and it needs {sizes[1]}"
        return _Obstacle.ROOM, sentence
    if deployment.cpu > free_cpu + _ROUNDING:
        free = max(round(free_cpu, 3), 0)
        sentence = f"{site.runner.id} has {free:g} cores free, and it needs {deployment.cpu:g}"
        return _Obstacle.ROOM, sentence
    return None


def _sentence(deployment: Deployment, obstacles: Mapping[str, tuple[_Obstacle, str] | None]) -> str:
    """Why a deployment waits: what the site lacks that is nearest to doing."""
    known = [obstacle for obstacle in obstacles.values() if obstacle is not None]
    if not known:
        return f"no site opens to {deployment.organisation}"
    return max(known, key=lambda obstacle: obstacle[0])[1]


def _architecture(text: str) -> str:
    """An architecture under its name in images."""
    return _ARCHITECTURES.get(text.lower(), text.lower())


def _mib(size: int) -> str:
    return f"{size // _MIB} MiB"


def _free_bytes(site: SiteCandidate) -> int:
    given = 0 if site.runner.state is None else site.runner.state.memory_bytes
    return given - site.promised.memory_bytes


def _with(promised: PromisedResources, deployment: Deployment) -> PromisedResources:
    """The promised resources after one more deployment."""
    return PromisedResources(
        cpu=promised.cpu + deployment.cpu,
        memory_bytes=promised.memory_bytes + deployment.memory_bytes,
        deployments=promised.deployments + 1,
    )
