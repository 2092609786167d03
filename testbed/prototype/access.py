"""Compares the inputs of a manifest with a testbed: which exist, which may be read, which not."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from broker import clock
from broker.clock import Clock
from broker.namespace import LIVE, StreamAddress
from broker.prototypes.manifest import PrototypeManifest
from broker.responses.credentials import MeResponse
from broker.responses.equipment import StreamPage
from broker.responses.grants import GrantPage, GrantResponse, ListingPage
from broker.rights import GrantState
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn


class InputState(StrEnum):
    """Whether the organisation may read the stream of an input."""

    OWN = "own"
    """It is a stream of the organisation's own."""
    GRANTED = "granted"
    """A grant covers it now."""
    PAUSED = "paused"
    """Its owner has paused the grant."""
    ASKED = "asked"
    """It was asked for, and the owner has not decided."""
    MISSING = "missing"
    """No grant covers it now, and it can be asked for."""
    UNKNOWN = "unknown"
    """There is no such stream, or none that is listed to the organisation."""


READABLE = frozenset({InputState.OWN, InputState.GRANTED})
ADVICE: Mapping[InputState, str] = {
    InputState.OWN: "",
    InputState.GRANTED: "",
    InputState.PAUSED: "its owner has paused the grant, and can resume it",
    InputState.ASKED: "its owner has not decided yet",
    InputState.MISSING: "ask for it: testbed prototype request",
    InputState.UNKNOWN: "no such stream is listed to you: is its name right?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputAccess:
    """An input of a manifest, and whether the organisation may read its stream."""

    name: str
    stream: StreamAddress
    state: InputState

    @property
    def as_json(self) -> dict[str, Any]:
        """The keys that scripts rely on."""
        return {
            "name": self.name,
            "stream": str(self.stream),
            "state": str(self.state),
            "advice": ADVICE[self.state] or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsView:
    """The parts of a testbed that an organisation sees, as far as inputs are concerned.

    streams: those that it has or may read.  listed: those of equipment that is listed to it.
    now: the present instant, as the API writes instants.
    """

    organisation: str
    streams: AbstractSet[StreamAddress]
    listed: AbstractSet[StreamAddress]
    grants: Sequence[GrantResponse]
    now: str

    def state(self, stream: StreamAddress) -> InputState:
        """Whether the organisation may read a stream in the space `live`."""
        if stream.organisation == self.organisation:
            return InputState.OWN if stream in self.streams else InputState.UNKNOWN
        states = {self._state_of(grant) for grant in self.grants if self._is_about(grant, stream)}
        for state in (InputState.GRANTED, InputState.PAUSED, InputState.ASKED):
            if state in states:
                return state
        is_seen = stream in self.listed or stream in self.streams or bool(states)
        return InputState.MISSING if is_seen else InputState.UNKNOWN

    def _is_about(self, grant: GrantResponse, stream: StreamAddress) -> bool:
        own = (grant.company, grant.space, grant.stream)
        return own == (self.organisation, LIVE, str(stream))

    def _state_of(self, grant: GrantResponse) -> InputState:
        if grant.state == GrantState.ASKED:
            return InputState.ASKED
        is_begun = grant.from_ is None or grant.from_ <= self.now
        is_over = grant.until is not None and grant.until <= self.now
        if grant.state != GrantState.GRANTED or not is_begun or is_over:
            return InputState.MISSING
        return InputState.PAUSED if grant.paused else InputState.GRANTED


async def fetch(manifest: PrototypeManifest, machine: Clock) -> list[InputAccess]:
    """Compare all inputs of a manifest with the testbed of the sign-in.

    Raises Invalid without a sign-in, Unavailable if the testbed does not answer.
    """
    async with api.connect() as testbed:
        me = await testbed.get("/me", MeResponse)
        streams = await testbed.whole("/streams", StreamPage)
        grants = await testbed.whole("/grants", GrantPage)
        listings = await testbed.whole("/listings", ListingPage)
    view = InputsView(
        organisation=me.organisation,
        streams={StreamAddress.parse(each.stream) for each in streams.items},
        listed={
            StreamAddress.parse(stream.stream)
            for listing in listings.items
            for stream in listing.streams
        },
        grants=grants.items,
        now=clock.text_of(machine.now_ns()),
    )
    return [
        InputAccess(name=name, stream=stream, state=view.state(stream))
        for name, stream in manifest.inputs.items()
    ]


def missing(inputs: Sequence[InputAccess]) -> list[str]:
    """The streams that can be asked for, each once."""
    streams = (str(each.stream) for each in inputs if each.state is InputState.MISSING)
    return list(dict.fromkeys(streams))


def are_readable(inputs: Sequence[InputAccess]) -> bool:
    """Whether the organisation may read all inputs."""
    return all(each.state in READABLE for each in inputs)


def print_inputs(inputs: Sequence[InputAccess], out: Screen) -> None:
    """Print a row for each input."""
    tables.print_rows(inputs, _INPUT, out)


_INPUT: list[TableColumn[InputAccess]] = [
    TableColumn(heading="input", cell=lambda each: each.name),
    TableColumn(heading="stream", cell=lambda each: str(each.stream)),
    TableColumn(heading="state", cell=lambda each: str(each.state)),
    TableColumn(
        heading="what to do", cell=lambda each: ADVICE[each.state] or tables.NOTHING, is_prose=True
    ),
]
