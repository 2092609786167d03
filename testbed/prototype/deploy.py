"""Deploys the prototype of a folder: pushes its image, asks for its conditions, and waits."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker import api_client
from broker.clock import Clock
from broker.deployments.life import DeploymentStage
from broker.deployments.source import RecordedOrder, SimulatedOrder
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.process import files
from broker.prototypes import bundle
from broker.prototypes import file as manifest_file
from broker.prototypes.image import ArchiveImage, RegistryImage
from broker.prototypes.manifest import PrototypeManifest
from broker.responses.deployments import DeploymentResponse, GatesResponse, ImageResponse
from broker.responses.recordings import RecordingDetailResponse
from testbed.client import api, deployments, images
from testbed.prototype import project as prototype_project
from testbed.prototype import source_order
from testbed.prototype.source_order import SourceChoice
from testbed.scenario.loading import LoadedScenario
from testbed.terminal.screen import announce, notes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployChoice:
    """The choices of who deploys.

    labels: that the site must have.  waits: until it runs or has ended.
    """

    stage: DeploymentStage
    labels: Sequence[str] = ()
    source: SourceChoice = field(default_factory=SourceChoice)
    waits: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """Conditions of a deployment, and the deployment: None where one is not met."""

    gates: GatesResponse
    deployment: DeploymentResponse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployableProject:
    """A manifest, the folder that its files lie in, and its scenario if there is one."""

    folder: Path
    manifest: PrototypeManifest
    scenario: LoadedScenario | None


def load(path: Path, clock: Clock) -> DeployableProject:
    """Read a manifest, or that of a folder, with the scenario beside it.

    Raises Unknown if there is none, Invalid with everything that is wrong.
    """
    is_file = path.is_file()
    if is_file and path.name != manifest_file.NAME:
        raise Invalid(
            f"{path} is not called {manifest_file.NAME}",
            hint="name the folder, or that file in it",
        )
    folder = path.parent if is_file else path
    if (folder / prototype_project.SCENARIO).exists():
        project = prototype_project.load(folder, clock)
        return DeployableProject(
            folder=folder, manifest=project.manifest, scenario=project.scenario
        )
    manifest = prototype_project.load_manifest(folder).manifest
    return DeployableProject(folder=folder, manifest=manifest, scenario=None)


async def deploy(project: DeployableProject, choice: DeployChoice, clock: Clock) -> Deployed:
    """Push the image if the testbed has it not, ask for the conditions, deploy, and wait.

    Says on standard error what happens.  Raises Invalid for choices that do not fit, and what the
    API answers.
    """
    choice.source.check(choice.stage)
    async with api.connect(images.TIMEOUT_S) as connection:
        organisation = await images.own_organisation(connection)
        order = await _order(project, choice, connection)
        image = await _image(project, connection, organisation)
        order["digest"] = image.digest
        gates = await deployments.gates(connection, organisation, order)
        if not gates.open:
            return Deployed(gates=gates)
        deployment = await deployments.deploy(connection, organisation, order)
        notes.print(deployments.title(deployment), style="bold")
        if choice.waits:
            deployment = await deployments.settled(connection, deployment.id, clock)
        return Deployed(gates=gates, deployment=deployment)


async def _order(
    project: DeployableProject, choice: DeployChoice, connection: api_client.Api
) -> dict[str, Any]:
    """The body of the request, without the digest of the image."""
    source = await _source(project, choice, connection)
    return {
        "manifest": project.manifest.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "stage": choice.stage,
        "labels": list(choice.labels),
        "source": None if source is None else source.model_dump(mode="json"),
    }


async def _source(
    project: DeployableProject, choice: DeployChoice, connection: api_client.Api
) -> SimulatedOrder | RecordedOrder | None:
    if choice.stage is DeploymentStage.LIVE or not project.manifest.inputs:
        return None
    if choice.stage is DeploymentStage.SIMULATED:
        chosen = source_order.simulated(project.manifest, project.scenario, choice.source)
        for sentence in chosen.left_out:
            notes.print(sentence, style="yellow")
        return chosen.order
    return await recorded_source(
        lambda organisation: source_order.usual_streams(project.manifest, organisation),
        choice.source,
        connection,
    )


async def recorded_source(
    usual: Callable[[str], Mapping[str, Sequence[StreamAddress]]],
    choice: SourceChoice,
    connection: api_client.Api,
) -> RecordedOrder:
    """The order of a recording on the server; raises Invalid without one.

    usual: gives, for the organisation of the recording, the streams that may play each input.
    """
    path = f"/recordings/{choice.recording_number}"
    recording = await connection.get(path, RecordingDetailResponse)
    return source_order.recorded(usual(recording.organisation), recording, choice)


async def _image(
    project: DeployableProject, connection: api_client.Api, organisation: str
) -> ImageResponse:
    """The image of a manifest as the testbed holds it, pushed if it has to be."""
    image = project.manifest.image
    if isinstance(image, RegistryImage):
        return await images.pin(connection, organisation, image.registry)
    if isinstance(image, ArchiveImage):
        announce(f"pushing {image.archive}")
        path = project.folder / image.archive
        return await images.push(
            connection, organisation, path, name=image.archive, kind=images.ARCHIVE
        )
    return await _project(project, connection, organisation)


async def _project(
    project: DeployableProject, connection: api_client.Api, organisation: str
) -> ImageResponse:
    """The packed project, which is pushed unless the testbed holds it already."""
    digest = bundle.pack(project.folder).digest
    for held in await images.held(connection, organisation):
        if held.digest == digest:
            return held
    announce(f"pushing the project {project.folder}")
    with _packed(project.folder) as archive:
        return await images.push(
            connection,
            organisation,
            archive,
            name=project.manifest.name,
            kind=images.PROJECT,
        )


@contextmanager
def _packed(folder: Path) -> Iterator[Path]:
    """A temporary file with the packed project; raises Unavailable if it cannot be written."""
    place = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryDirectory(prefix=".testbed-project-") as temporary:
            archive = Path(temporary) / "project.tar"
            with archive.open("xb") as target:
                bundle.pack(folder, target)
            yield archive
    except OSError as exc:
        raise files.unwritable(place, "the folder", exc, "another path by TMPDIR") from exc
