"""The order in which the members of a run work off a quantum.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.namespace import EquipmentAddress, StreamAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockMember:
    """A prototype that takes part in a run's clock.

    name: in the scenario.  address: of its deployment, which publishes its outputs.  inputs: the
    streams that it may read.  answers_within_s: real time for a quantum.
    """

    name: str
    address: EquipmentAddress
    inputs: frozenset[StreamAddress]
    answers_within_s: float = 10.0

    def reads(self, other: "ClockMember") -> bool:
        """Whether it reads an output of another member."""
        return any(stream.owner == other.address for stream in self.inputs)


@dataclass(frozen=True, slots=True)
class MemberOrder:
    """Levels of members, one after the other; those of one level work at the same time.

    What a member publishes in a quantum is read in the same quantum by later levels, where
    `is_forward` says so; by others, as in a circle, in the next one.
    """

    levels: tuple[tuple[ClockMember, ...], ...]
    forward: frozenset[tuple[EquipmentAddress, EquipmentAddress]]

    @classmethod
    def of(cls, members: Sequence[ClockMember]) -> "MemberOrder":
        """Order members by what they read of each other; a circle begins at its first member."""
        rest = list(members)
        level_of: dict[EquipmentAddress, int] = {}
        forward: set[tuple[EquipmentAddress, EquipmentAddress]] = set()
        placed: list[ClockMember] = []
        while rest:
            free = [
                member
                for member in rest
                if not any(member.reads(other) for other in rest if other is not member)
            ]
            member = (free or rest)[0]
            sources = [other for other in placed if member.reads(other)]
            forward |= {(other.address, member.address) for other in sources}
            level_of[member.address] = 1 + max(
                (level_of[other.address] for other in sources), default=-1
            )
            placed.append(member)
            rest.remove(member)
        count = 1 + max(level_of.values(), default=-1)
        levels = tuple(
            tuple(member for member in placed if level_of[member.address] == level)
            for level in range(count)
        )
        return cls(levels, frozenset(forward))

    def is_forward(self, publisher: EquipmentAddress, reader: EquipmentAddress) -> bool:
        """Whether the reader gets what the publisher publishes in the same quantum."""
        return (publisher, reader) in self.forward
