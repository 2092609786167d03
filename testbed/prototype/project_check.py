"""The check of a prototype's project, with the testbed if that is wanted, as it is printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.clock import Clock
from testbed.prototype import access
from testbed.prototype import project as prototype_project
from testbed.prototype.access import InputAccess
from testbed.terminal.screen import Screen


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectCheck:
    """A project with nothing wrong in its files.

    inputs: as the testbed knows them; None where it was not asked.
    """

    name: str
    folder: Path
    inputs: Sequence[InputAccess] | None = None

    @property
    def passed(self) -> bool:
        """Whether all inputs may be read, as far as it is known."""
        return self.inputs is None or access.are_readable(self.inputs)

    @property
    def as_json(self) -> dict[str, Any]:
        """The keys that scripts rely on."""
        inputs = None if self.inputs is None else [each.as_json for each in self.inputs]
        return {"prototype": self.name, "passed": self.passed, "inputs": inputs}


async def checked(folder: Path, clock: Clock, *, with_testbed: bool) -> ProjectCheck:
    """Check manifest and scenario of a folder, and the inputs if `with_testbed`.

    Raises Unknown and Invalid with all that is wrong with the files, Unavailable if the testbed
    does not answer.
    """
    project = prototype_project.load(folder, clock)
    inputs = await access.fetch(project.manifest, clock) if with_testbed else None
    return ProjectCheck(name=project.manifest.name, folder=folder, inputs=inputs)


def print_check(check: ProjectCheck, out: Screen) -> None:
    """Print the check: a sentence, and a row for each input that the testbed was asked about."""
    out.print(f"{check.name} is right: manifest and scenario agree")
    if check.inputs:
        access.print_inputs(check.inputs, out)
