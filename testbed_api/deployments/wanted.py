"""The state in which a deployment is wanted now: by people, and by the grants of its inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker import policy
from broker.clock import text_of
from broker.deployments.life import EndCause, WantedState
from broker.namespace import StreamTopic, Verb
from broker.rights import Action, Rights
from testbed_api.domain.deployments import Deployment
from testbed_api.registry.rights import PrincipalRights
from testbed_api.registry.rights_cache import RightsCache


@dataclass(frozen=True, slots=True)
class WantedNow:
    """The state that a runner is to bring about; cause: of a stop.  reason: of a stop or freeze."""

    state: WantedState = WantedState.RUN
    cause: EndCause | None = None
    reason: str = ""


def decide(deployment: Deployment, rights: Rights | None, now_ns: int) -> WantedNow:
    """Decide in which state a deployment is wanted.

    rights: of its machine, None if nobody has its name.  A grant that has ended weighs more than
    one that is paused.
    """
    if deployment.wanted is WantedState.STOP:
        return WantedNow(WantedState.STOP, deployment.cause, deployment.wanted_reason)
    if rights is None or rights.principal(deployment.principal, now_ns) is None:
        reason = f"the credential of {deployment.principal} was revoked"
        return WantedNow(WantedState.STOP, EndCause.STOPPED, reason)
    frozen = WantedNow()
    for name, address in deployment.inputs.items():
        topic = StreamTopic(deployment.space, Verb.DATA, address)
        decision = policy.decide(rights, deployment.principal, Action.SUBSCRIBE, topic, now_ns)
        if decision.pause is not None:
            since = text_of(decision.pause.span.from_ns)
            reason = (
                f"{decision.pause.owner} has paused grant {decision.grant} of input {name},"
                f" {address}, since {since}"
            )
            frozen = WantedNow(WantedState.FREEZE, None, reason)
        elif not decision.allowed:
            reason = f"the grant of input {name}, {address}, has ended"
            return WantedNow(WantedState.STOP, EndCause.GRANT, reason)
    return frozen


async def of_each(
    deployments: Sequence[Deployment], cache: RightsCache, now_ns: int
) -> Mapping[int, WantedNow]:
    """The states in which deployments are wanted, by their numbers; none of one that is over."""
    lasting = [each for each in deployments if not each.is_over]
    rights = await cache.current({each.principal for each in lasting}) if lasting else {}
    return {
        each.id: decide(each, _rights_of(rights.get(each.principal)), now_ns) for each in lasting
    }


def _rights_of(its: PrincipalRights | None) -> Rights | None:
    return None if its is None else its.rights
