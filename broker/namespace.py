"""Addresses of equipment and streams, and their topics on the bus.

`tb1/{space}/{verb}/{organisation}/{equipment}/{last…}`: the verb comes first, so that every right
is one exact topic, and no subtree of an organisation contains topics that others may write.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Self

from broker.errors import Invalid

ROOT = "tb1"
LIVE = "live"
RUN_PREFIX = "run-"

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)


class EquipmentKind(StrEnum):
    """Kind of a registered equipment."""

    REAL = "real"
    SIMULATED = "simulated"


class Verb(StrEnum):
    """Kind of message that a topic carries."""

    DATA = "data"
    LATE = "late"
    SPEC = "spec"
    HEALTH = "health"
    MARK = "mark"
    ANCHOR = "anchor"
    CLOCK = "clock"
    READY = "ready"


STREAM_VERBS = frozenset({Verb.DATA, Verb.LATE, Verb.SPEC, Verb.HEALTH})
"""Verbs of topics that belong to one stream."""


RUN_VERBS = frozenset({Verb.CLOCK, Verb.READY})
"""Verbs of the clock of a run, between its coordinator and one member."""


def is_id(text: str) -> bool:
    """Whether a text is a valid id: 1 to 40 of a-z, 0-9 and `-`, neither first nor last a `-`."""
    return _ID.fullmatch(text) is not None


def checked_id(text: str, what: str) -> str:
    """Return `text` if it is a valid id; raises Invalid, in which `what` names it."""
    if _ID.fullmatch(text) is None:
        raise Invalid(
            f"{what} {text[:60]!r} is not an id",
            hint="use 1 to 40 of a-z, 0-9 and '-', neither first nor last a '-'",
        )
    return text


def checked_space(text: str) -> str:
    """Return `text` if it names a space, `live` or `run-<id>`; raises Invalid."""
    if text != LIVE and not text.startswith(RUN_PREFIX):
        raise Invalid(f"space {text[:60]!r} is not a space", hint="use 'live' or 'run-<id>'")
    return checked_id(text, "space")


@dataclass(frozen=True, slots=True, order=True)
class EquipmentAddress:
    """Address of an equipment, or of a prototype's deployment, of an organisation."""

    organisation: str
    equipment: str

    def __post_init__(self) -> None:
        checked_id(self.organisation, "organisation")
        checked_id(self.equipment, "equipment")

    def __str__(self) -> str:
        return f"{self.organisation}/{self.equipment}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `organisation/equipment`; raises Invalid."""
        parts = text.split("/")
        if len(parts) != 2:
            raise Invalid(
                f"{text[:130]!r} is not the address of an equipment",
                hint="write organisation/equipment",
            )
        return cls(*parts)


@dataclass(frozen=True, slots=True, order=True)
class StreamAddress:
    """Address of a stream, the unit that is shared, stored, granted and described by a spec."""

    organisation: str
    equipment: str
    stream: str

    def __post_init__(self) -> None:
        checked_id(self.organisation, "organisation")
        checked_id(self.equipment, "equipment")
        checked_id(self.stream, "stream")

    def __str__(self) -> str:
        return f"{self.organisation}/{self.equipment}/{self.stream}"

    @property
    def owner(self) -> EquipmentAddress:
        """The equipment that the stream belongs to: on the bus, its publisher."""
        return EquipmentAddress(self.organisation, self.equipment)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `organisation/equipment/stream`; raises Invalid."""
        parts = text.split("/")
        if len(parts) != 3:
            raise Invalid(
                f"{text[:130]!r} is not the address of a stream",
                hint="write organisation/equipment/stream",
            )
        return cls(*parts)


@dataclass(frozen=True, slots=True, order=True)
class StreamTopic:
    """Topic of one stream's batches, backlog, spec or health in one space."""

    space: str
    verb: Verb
    address: StreamAddress

    def __post_init__(self) -> None:
        checked_space(self.space)
        if self.verb not in STREAM_VERBS:
            raise Invalid(
                f"a topic of verb {self.verb} is addressed to a publisher, not to a stream"
            )

    def __str__(self) -> str:
        return f"{ROOT}/{self.space}/{self.verb}/{self.address}"


@dataclass(frozen=True, slots=True, order=True)
class MarkTopic:
    """Topic of the recorder's marks for one publisher."""

    space: str
    publisher: EquipmentAddress

    def __post_init__(self) -> None:
        checked_space(self.space)

    def __str__(self) -> str:
        return f"{ROOT}/{self.space}/{Verb.MARK}/{self.publisher}"


@dataclass(frozen=True, slots=True, order=True)
class AnchorTopic:
    """Topic of the signed audit heads for one publisher."""

    publisher: EquipmentAddress

    def __str__(self) -> str:
        return f"{ROOT}/{LIVE}/{Verb.ANCHOR}/{self.publisher}"


@dataclass(frozen=True, slots=True, order=True)
class RunTopic:
    """Topic of the clock of a run for one member: `clock` to it, `ready` from it.

    Raises Invalid in the space `live`, whose time nobody sets.
    """

    space: str
    verb: Verb
    member: EquipmentAddress

    def __post_init__(self) -> None:
        checked_space(self.space)
        if self.space == LIVE:
            raise Invalid("the space 'live' has no clock of its own", hint="use 'run-<id>'")
        if self.verb not in RUN_VERBS:
            raise Invalid(f"a topic of verb {self.verb} is not of the clock of a run")

    def __str__(self) -> str:
        return f"{ROOT}/{self.space}/{self.verb}/{self.member}"


Topic = StreamTopic | MarkTopic | AnchorTopic | RunTopic


@lru_cache(maxsize=10_000)
def parse(text: str) -> Topic:
    """Parse a topic; `parse(str(topic)) == topic`.  Raises Invalid."""
    match text.split("/"):
        case [root, space, verb, organisation, equipment] if root == ROOT and verb == Verb.MARK:
            return MarkTopic(space, EquipmentAddress(organisation, equipment))
        case [root, space, verb, organisation, equipment] if (root, space, verb) == (
            ROOT,
            LIVE,
            Verb.ANCHOR,
        ):
            return AnchorTopic(EquipmentAddress(organisation, equipment))
        case [root, space, verb, organisation, equipment] if root == ROOT and verb in RUN_VERBS:
            return RunTopic(space, Verb(verb), EquipmentAddress(organisation, equipment))
        case [root, space, verb, organisation, equipment, stream] if (
            root == ROOT and verb in STREAM_VERBS
        ):
            return StreamTopic(space, Verb(verb), StreamAddress(organisation, equipment, stream))
    raise Invalid(
        f"{text[:200]!r} is not a topic of the testbed",
        hint=f"write {ROOT}/space/verb/organisation/equipment/stream",
    )


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether an MQTT filter (with `+` and a last `#`) covers a topic or a narrower filter.

    Source: MQTT 3.1.1, 4.7.
    """
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    for at, level in enumerate(filter_levels):
        if level == "#":
            return at > 0 or not topic.startswith("$")
        if at >= len(levels) or levels[at] == "#":
            return False
        if level != levels[at] and (level != "+" or (at == 0 and topic.startswith("$"))):
            return False
    return len(filter_levels) == len(levels)
