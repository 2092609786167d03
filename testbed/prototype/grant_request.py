"""Asks the owners of all inputs of a manifest for the grants that are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.clock import Clock
from broker.errors import Invalid
from broker.responses.grants import RequestOutcomeResponse
from testbed.client import grants
from testbed.client.grants import Term
from testbed.prototype import access
from testbed.prototype import project as prototype_project
from testbed.prototype.access import InputAccess, InputState
from testbed.terminal.screen import Screen


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantsAsked:
    """The inputs of a manifest as they were, and what came of the request for the missing grants.

    outcome: None where nothing was to be asked for.
    """

    inputs: Sequence[InputAccess]
    outcome: RequestOutcomeResponse | None

    @property
    def passed(self) -> bool:
        """Whether every input exists, as far as the organisation sees."""
        return all(each.state is not InputState.UNKNOWN for each in self.inputs)

    @property
    def as_json(self) -> dict[str, Any]:
        """The keys that scripts rely on."""
        return {
            "inputs": [each.as_json for each in self.inputs],
            "request": None if self.outcome is None else self.outcome.as_json(),
        }


async def ask(
    folder: Path, purpose: str | None, expires_in_s: float | None, clock: Clock
) -> GrantsAsked:
    """Ask for all grants that the inputs of a folder's manifest lack, in one request.

    purpose: None for that of the manifest.  expires_in_s: None for grants without an end.
    Raises Invalid without a purpose, and as `load_manifest` and `access.fetch` do.
    """
    manifest = prototype_project.load_manifest(folder).manifest
    sentence = manifest.purpose if purpose is None else purpose
    if not sentence.strip():
        raise Invalid(
            "the owners are not told what the inputs are needed for",
            hint="write `purpose: …` into the manifest, or give --purpose",
        )
    inputs = await access.fetch(manifest, clock)
    streams = access.missing(inputs)
    outcome = None
    if streams:
        outcome = await grants.ask(streams, sentence, Term(expires_in_s=expires_in_s))
    return GrantsAsked(inputs=inputs, outcome=outcome)


def print_request(request: GrantsAsked, out: Screen) -> None:
    """Print the new requests, and a row for each other input that cannot be read."""
    if request.outcome is None:
        out.print("there is nothing to ask for")
    else:
        grants.print_outcome(request.outcome, out)
    others = [
        each for each in request.inputs if each.state not in {*access.READABLE, InputState.MISSING}
    ]
    if others:
        access.print_inputs(others, out)
