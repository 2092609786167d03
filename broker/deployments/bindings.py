"""The streams behind the names that a prototype knows, in each stage of its deployments.  Pure.

In the live stage the inputs are the streams of its manifest.  In the others they are streams of an
equipment that stands for no machine: `watch-simulated` or `watch-recorded` of the prototype
`watch`.  The kind of an equipment never changes, and the source of every batch follows from it: so
what is simulated never counts as a machine's own data, and a simulator's spec is no new version of
a real stream's.  Outputs are streams of `watch-run` until they are live, for the same reason.
"""

import hashlib
from collections.abc import Iterable, Mapping

from broker import namespace
from broker.deployments.life import DeploymentStage
from broker.errors import Invalid
from broker.namespace import LIVE, StreamAddress

MOST_ID = 40
OF_OUTPUTS = "-run"
"""Ending of the equipment of a prototype's outputs, where they are not live."""
_DIGITS = 8


def check_prototype(prototype: str) -> None:
    """Raise Invalid for a name that another prototype's trials would take for their streams."""
    endings = (*(f"-{stage}" for stage in DeploymentStage), OF_OUTPUTS)
    if prototype.endswith(endings):
        ending = prototype[prototype.rindex("-") :]
        raise Invalid(
            f"no prototype that is deployed is called {prototype}",
            hint=f"names that end in {ending} are those of trials: choose another one",
        )


def bound_inputs(
    organisation: str, prototype: str, stage: DeploymentStage, inputs: Mapping[str, StreamAddress]
) -> dict[str, StreamAddress]:
    """The streams that a deployment reads, by the names of its inputs.

    organisation: whose deployment it is.  inputs: addresses of its manifest.
    """
    if stage is DeploymentStage.LIVE:
        return dict(inputs)
    equipment = _equipment(prototype, f"-{stage}")
    return {name: StreamAddress(organisation, equipment, name) for name in inputs}


def bound_outputs(
    organisation: str, prototype: str, stage: DeploymentStage, outputs: Iterable[str]
) -> dict[str, StreamAddress]:
    """The streams that a deployment publishes, by the names of its outputs.

    What a program answers to simulated or recorded samples is simulated.
    """
    live = stage is DeploymentStage.LIVE
    equipment = prototype if live else _equipment(prototype, OF_OUTPUTS)
    return {name: StreamAddress(organisation, equipment, name) for name in outputs}


def _equipment(prototype: str, ending: str) -> str:
    """The id of an equipment of a prototype: its name and an ending, cut where it is too long."""
    if len(prototype) + len(ending) <= MOST_ID:
        return prototype + ending
    digest = hashlib.sha256(prototype.encode()).hexdigest()[:_DIGITS]
    room = MOST_ID - len(ending) - _DIGITS - 1
    return f"{prototype[:room].rstrip('-')}-{digest}{ending}"


def space_of(stage: DeploymentStage, number: int) -> str:
    """The space of a deployment's streams; number: its own."""
    return LIVE if stage is DeploymentStage.LIVE else f"{namespace.RUN_PREFIX}deployment-{number}"
