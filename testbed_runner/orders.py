"""The work of a runner: what the testbed wants of it, as its parts use it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from broker.deployments.life import EndCause, WantedState
from broker.errors import Corrupt
from broker.prototypes.manifest import PrototypeManifest
from broker.pydantic_checks import first_sentence
from broker.responses.deployments import WorkItem
from testbed_runner.decision import WantedDeployment
from testbed_runner.port import (
    CREDENTIAL_FILE,
    SECRETS_FOLDER,
    SECRETS_VARIABLE,
    ContainerSpec,
    ImageWanted,
)

STOP_S = 15.0
"""From SIGTERM to SIGKILL: the SDK waits 10 s for the marks of its last batches."""
CUT_OFF_S = 3.0
"""Likewise where the testbed takes nothing any more, as a grant has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOrder:
    """A deployment that a runner has.  source: what plays its inputs, None in the live stage."""

    item: WorkItem
    manifest: PrototypeManifest

    @classmethod
    def from_item(cls, item: WorkItem) -> "RunnerOrder":
        """Read the manifest of an item; raises Corrupt."""
        try:
            return cls(item=item, manifest=PrototypeManifest.model_validate(item.manifest))
        except ValidationError as exc:
            raise Corrupt(
                f"the manifest of deployment {item.id} is none: {first_sentence(exc)}",
                hint="is the server of another version than this runner?",
            ) from exc

    @property
    def wanted(self) -> WantedDeployment:
        """The wish of the testbed, as the decision takes it."""
        return WantedDeployment(
            wanted=self.item.wanted,
            manifest=self.manifest,
            cause=self.item.cause,
            reason=self.item.reason,
        )

    @property
    def image(self) -> ImageWanted:
        """Its image."""
        item = self.item
        return ImageWanted(kind=item.image_kind, digest=item.digest, reference=item.reference)

    @property
    def stops_within_s(self) -> float:
        """The time that its program has to end."""
        is_cut_off = self.item.wanted is WantedState.STOP and self.item.cause is EndCause.GRANT
        return CUT_OFF_S if is_cut_off else STOP_S

    def spec(self, site: str, files: Mapping[str, bytes]) -> ContainerSpec:
        """Its container.  site: name of the runner.  files: credential and secrets, by name."""
        return ContainerSpec(
            deployment=self.item.id,
            site=site,
            image=self.image,
            command=tuple(shlex.split(self.manifest.command)),
            environment=dict(self.manifest.environment) | self._bindings(),
            files=files,
            resources=self.manifest.resources,
        )

    def source_environment(self) -> dict[str, str]:
        """The variables of what plays its inputs, but for addresses and credential."""
        return {
            "TESTBED_SPACE": self.item.space,
            "TESTBED_OUTPUTS": bindings_text(self.item.inputs),
        }

    def _bindings(self) -> dict[str, str]:
        return {
            "TESTBED_INPUTS": bindings_text(self.item.inputs),
            "TESTBED_OUTPUTS": bindings_text(self.item.outputs),
            "TESTBED_SPACE": self.item.space,
            "TESTBED_CREDENTIAL_FILE": f"{SECRETS_FOLDER}/{CREDENTIAL_FILE}",
            SECRETS_VARIABLE: SECRETS_FOLDER,
            "PYTHONUNBUFFERED": "1",
        }


def bindings_text(streams: Mapping[str, Any]) -> str:
    """The text of TESTBED_INPUTS or TESTBED_OUTPUTS."""
    return ",".join(f"{name}={address}" for name, address in streams.items())
