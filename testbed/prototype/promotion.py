"""Promotes a deployment to the next stage: the same image and manifest, and its conditions."""

from collections.abc import Sequence
from typing import Any

from broker.clock import Clock
from broker.deployments.life import DeploymentStage
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.responses.deployments import DeploymentResponse
from testbed.client import api, deployments
from testbed.prototype import deploy
from testbed.prototype.source_order import SourceChoice
from testbed.terminal.screen import notes

NEXT = {
    DeploymentStage.SIMULATED: DeploymentStage.RECORDED,
    DeploymentStage.RECORDED: DeploymentStage.LIVE,
}


async def promote(
    number: int,
    labels: Sequence[str] | None,
    choice: SourceChoice,
    clock: Clock,
    *,
    waits: bool,
) -> DeploymentResponse:
    """Promote a deployment, and wait until the new one runs or has ended.

    labels: that its site must have, None for those of the former one.  Raises Refused with the
    conditions that are not met.
    """
    async with api.connect() as connection:
        former = await connection.get(f"/deployments/{number}", DeploymentResponse)
        stage = NEXT.get(former.stage)
        if stage is None:
            raise Invalid(
                f"deployment {number} is live, which is the last stage",
                hint="`testbed deployments` lists the others",
            )
        choice.check(stage)
        body: dict[str, Any] = {} if labels is None else {"labels": list(labels)}
        if stage is DeploymentStage.RECORDED and former.inputs:
            trial = {name: [StreamAddress.parse(each)] for name, each in former.inputs.items()}
            order = await deploy.recorded_source(lambda _: trial, choice, connection)
            body["source"] = order.model_dump(mode="json")
        path = f"/deployments/{number}/promote"
        deployment = await connection.send("POST", path, DeploymentResponse, body)
        notes.print(deployments.title(deployment), style="bold")
        return await deployments.settled(connection, deployment.id, clock) if waits else deployment
