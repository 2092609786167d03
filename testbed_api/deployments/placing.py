"""Placement over the registry: deployments that wait are given to sites that have room."""

from collections.abc import Sequence

import structlog

from testbed_api.domain import placement
from testbed_api.domain.deployments import Deployment
from testbed_api.domain.placement import SiteCandidate, SiteChoice
from testbed_api.domain.runners import PromisedResources
from testbed_api.registry.registry import Registry

log = structlog.get_logger()


async def obstacle(registry: Registry, new: Deployment, now_ns: int) -> str:
    """Why a deployment would wait for a site if it came now, in the place of the former one of its
    prototype and stage; empty if a site would take it at once.
    """
    waiting = [each for each in await registry.deployments.waiting() if each.key != new.key]
    runners, promised = await registry.runners.all(), await registry.runners.promised()
    nothing = PromisedResources()
    candidates = [SiteCandidate(each, promised.get(each.id, nothing)) for each in runners]
    return placement.place([*waiting, new], candidates, now_ns)[-1].reason


async def choices(registry: Registry, now_ns: int) -> Sequence[SiteChoice]:
    """The choice for each deployment that waits for a site, as things are; it changes nothing."""
    waiting = await registry.deployments.waiting()
    if not waiting:
        return ()
    runners, promised = await registry.runners.all(), await registry.runners.promised()
    nothing = PromisedResources()
    candidates = [SiteCandidate(each, promised.get(each.id, nothing)) for each in runners]
    return placement.place(waiting, candidates, now_ns)


async def assign(change: Registry, now_ns: int) -> int:
    """Give deployments that wait to sites, inside a change of the registry; returns how many."""
    placed = 0
    for choice in await choices(change, now_ns):
        if choice.runner is not None:
            reason = f"{choice.runner} has it, and takes it next"
            await change.deployments.assign(choice.deployment, choice.runner, reason)
            log.info("deployment was placed", deployment=choice.deployment, runner=choice.runner)
            placed += 1
    return placed
