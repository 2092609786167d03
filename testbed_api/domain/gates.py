"""The conditions of a stage: what a prototype must have shown and got before it runs there.  Pure.

What is missing is said in sentences, each with what opens the gate.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from broker.clock import NS_PER_S, text_of
from broker.deployments.life import DeploymentStage, DeploymentState, EndCause
from testbed_api.domain.deployments import Deployment, DeploymentEvent, PinnedImage

TRIED_NS = 60 * NS_PER_S
"""The time that a deployment ran before it counts as a trial of its image."""
_HARMLESS = frozenset({EndCause.STOPPED, EndCause.REPLACED, EndCause.FINISHED, EndCause.SITE})
"""Ends of a deployment that say nothing against its image."""
_BEFORE: Mapping[DeploymentStage, DeploymentStage | None] = {
    DeploymentStage.SIMULATED: None,
    DeploymentStage.RECORDED: DeploymentStage.SIMULATED,
    DeploymentStage.LIVE: DeploymentStage.RECORDED,
}
_NEXT: Mapping[DeploymentStage, DeploymentStage | None] = {
    before: stage for stage, before in _BEFORE.items() if before is not None
}


class GateName(StrEnum):
    """The short names of conditions."""

    IMAGE = "image"
    QUOTA = "quota"
    SITE = "site"
    SECRETS = "secrets"
    TRIAL = "trial"
    """A run of this digest passed, or a deployment of it did well in the stage before."""
    SOURCE = "source"
    GRANTS = "grants"


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition of a stage.  todo: what opens it, empty where it is open."""

    name: GateName
    is_open: bool
    sentence: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class PassedRun:
    """A run that passed, and whose record names the image."""

    number: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class TriedDeployment:
    """A deployment of the image in an earlier stage.  events: its changes of state."""

    deployment: Deployment
    events: Sequence[DeploymentEvent]

    def flaw(self, now_ns: int) -> str:
        """Why it does not count as a trial that went well; empty if it does."""
        deployment = self.deployment
        if deployment.restarts:
            return f"its program was started again {deployment.restarts} times"
        end = deployment.last_end
        if end is not None and end.cause not in _HARMLESS:
            return f"it ended: {end.reason}"
        ran_ns = self._ran_ns(now_ns)
        if ran_ns < TRIED_NS:
            return f"it ran {ran_ns // NS_PER_S} s, and {TRIED_NS // NS_PER_S} s are needed"
        published = 0 if deployment.metrics is None else deployment.metrics.messages_out
        if deployment.outputs and not published:
            return "it published nothing"
        return ""

    def _ran_ns(self, now_ns: int) -> int:
        """The time that it was running."""
        ran_ns, since_ns = 0, None
        for event in self.events:
            if event.state is DeploymentState.RUNNING:
                since_ns = event.at_ns if since_ns is None else since_ns
            elif since_ns is not None:
                ran_ns, since_ns = ran_ns + max(0, event.at_ns - since_ns), None
        return ran_ns if since_ns is None else ran_ns + max(0, now_ns - since_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFacts:
    """Facts of a prototype that is to run in a stage.

    image: None if its organisation does not hold the digest.  over_quota: the sentence of a full
    quota, empty for room.  site: why it would wait for a site, empty if one takes it at once.
    run: the newest that passed.  tried: deployments of the digest in the stage before, the newest
    first.  returns_to: a deployment of the same in this stage, which a rollback goes back to; None
    for no rollback.  source: why what is to play its inputs cannot be had, empty if it can.
    not_granted: streams of its inputs that are not granted, or not registered.  no_secrets: names
    of secrets that are not set.
    """

    digest: str
    image: PinnedImage | None
    now_ns: int
    over_quota: str = ""
    site: str = ""
    run: PassedRun | None = None
    tried: Sequence[TriedDeployment] = ()
    returns_to: int | None = None
    source: str = ""
    not_granted: Collection[str] = ()
    no_secrets: Sequence[str] = ()
    inputs: Sequence[str] = ()


def stage_after(stage: DeploymentStage) -> DeploymentStage | None:
    """The stage to which a deployment is promoted, None from the last one."""
    return _NEXT.get(stage)


def stage_before(stage: DeploymentStage) -> DeploymentStage | None:
    """The stage in which an image is tried before, None for the first one."""
    return _BEFORE[stage]


def decide(stage: DeploymentStage, facts: GateFacts) -> list[Gate]:
    """The conditions of a stage, each open or not, in the order in which they are met."""
    gates = [_image(facts), _quota(facts), _site(facts)]
    if facts.no_secrets:
        names = ", ".join(facts.no_secrets)
        todo = "; ".join(f"testbed secret set {each}" for each in facts.no_secrets)
        gates.append(Gate(GateName.SECRETS, is_open=False, sentence=f"not set: {names}", todo=todo))
    before = stage_before(stage)
    if before is not None:
        gates.append(_trial(before, facts))
    if stage is not DeploymentStage.LIVE:
        gates.append(_source(stage, facts))
    else:
        gates.append(_grants(facts))
    return gates


def _image(facts: GateFacts) -> Gate:
    if facts.image is None:
        return Gate(
            GateName.IMAGE,
            is_open=False,
            sentence=f"the testbed does not hold {facts.digest}",
            todo="testbed prototype push",
        )
    pushed = text_of(facts.image.pushed_ns)
    sentence = f"{facts.image.name} was pushed by {facts.image.pushed_by} at {pushed}"
    return Gate(GateName.IMAGE, is_open=True, sentence=sentence)


def _quota(facts: GateFacts) -> Gate:
    if facts.over_quota:
        todo = "stop a deployment that is not needed: testbed deployments lists them"
        return Gate(GateName.QUOTA, is_open=False, sentence=facts.over_quota, todo=todo)
    return Gate(GateName.QUOTA, is_open=True, sentence="its organisation may have one more")


def _site(facts: GateFacts) -> Gate:
    """A deployment waits for its site, so this gate is never closed; it says for what."""
    if facts.site:
        return Gate(GateName.SITE, is_open=True, sentence=f"it will wait: {facts.site}")
    return Gate(GateName.SITE, is_open=True, sentence="a site takes it at once")


def _trial(before: DeploymentStage, facts: GateFacts) -> Gate:
    """Whether the image was tried, by a run that passed or in the stage before."""
    if facts.returns_to is not None:
        sentence = f"it ran in this stage before, as deployment {facts.returns_to}"
        return Gate(GateName.TRIAL, is_open=True, sentence=sentence)
    flaws = [(each.deployment.id, each.flaw(facts.now_ns)) for each in facts.tried]
    good = next((number for number, flaw in flaws if not flaw), None)
    if facts.run is not None:
        at = text_of(facts.run.ended_ns)
        sentence = f"run {facts.run.number} of this image passed at {at}"
        return Gate(GateName.TRIAL, is_open=True, sentence=sentence)
    if good is not None:
        sentence = f"deployment {good} of this image did well in the {before} stage"
        return Gate(GateName.TRIAL, is_open=True, sentence=sentence)
    if flaws:
        number, flaw = flaws[0]
        sentence = f"deployment {number} of this image in the {before} stage does not count: {flaw}"
    else:
        sentence = f"no run of this image passed, and none was tried in the {before} stage"
    todo = (
        f"deploy it with --stage {before}, let it run for {TRIED_NS // NS_PER_S} s; or hand over a"
        " run that passed: testbed run scenario.yaml --server URL"
    )
    return Gate(GateName.TRIAL, is_open=False, sentence=sentence, todo=todo)


def _source(stage: DeploymentStage, facts: GateFacts) -> Gate:
    if facts.source:
        todo = (
            "name another recording: testbed recording list"
            if stage is DeploymentStage.RECORDED
            else "name a simulator for each input"
        )
        return Gate(GateName.SOURCE, is_open=False, sentence=facts.source, todo=todo)
    player = "a recording" if stage is DeploymentStage.RECORDED else "simulators"
    return Gate(GateName.SOURCE, is_open=True, sentence=f"its inputs are played by {player}")


def _grants(facts: GateFacts) -> Gate:
    if facts.not_granted:
        return Gate(
            GateName.GRANTS,
            is_open=False,
            sentence=f"not granted: {', '.join(sorted(facts.not_granted))}",
            todo="testbed prototype request",
        )
    granted = ", ".join(facts.inputs) or "it reads nothing"
    return Gate(GateName.GRANTS, is_open=True, sentence=f"granted: {granted}")
