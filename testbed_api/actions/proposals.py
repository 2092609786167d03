"""Proposals of callers in acts on grants: a span, and the streams that they ask for."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from broker.clock import NS_PER_S, text_of
from broker.errors import Invalid
from broker.namespace import EquipmentAddress
from broker.rights import Entry, Span
from testbed_api.domain.grants import GrantRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanProposal:
    """The span that a caller asks for, or grants: from when, and until when or for how long."""

    from_ns: int | None = None
    until_ns: int | None = None
    lasting_s: float | None = None

    def within(self, wanted: Span, now_ns: int) -> Span:
        """The span, with the ends of `wanted` where nothing is proposed; raises Invalid.

        An end that is counted from now is rounded up to a whole second: connections end at those.
        """
        if self.until_ns is not None and self.lasting_s is not None:
            raise Invalid("until and expires_in_s are both given", hint="give one of them")
        from_ns = wanted.from_ns if self.from_ns is None else self.from_ns
        until_ns = whole_end(self.lasting_s, now_ns) or wanted.until_ns
        if self.until_ns is not None:
            until_ns = self.until_ns
        if from_ns > now_ns:
            from_ns = whole(from_ns)
        if until_ns is not None and until_ns <= max(from_ns, now_ns):
            raise Invalid(
                f"until {text_of(until_ns)} is over before it begins", hint="choose a later instant"
            )
        return Span(max(from_ns, 0), until_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedStreams:
    """Streams that a company asks for: by name, and all that some equipment have at that moment.

    equipment: each with the space that its streams are wanted in.
    """

    entries: Sequence[Entry] = ()
    equipment: Sequence[tuple[str, EquipmentAddress]] = ()

    def __post_init__(self) -> None:
        if not self.entries and not self.equipment:
            raise Invalid("nothing is asked for", hint="name streams, or an equipment")

    @property
    def owners(self) -> Collection[EquipmentAddress]:
        """The equipment of all of them, each once."""
        named = (entry.address.owner for entry in self.entries)
        return dict.fromkeys([*named, *(address for _, address in self.equipment)])


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutcome:
    """The outcome of a request: a grant for each stream, in the order of asking.

    standing: the numbers of those that were there before.  notes: a sentence about each of these.
    """

    grants: Sequence[GrantRequest]
    standing: frozenset[int] = frozenset()
    notes: Sequence[str] = ()


def whole(ns: int) -> int:
    """An instant, rounded up to a whole second."""
    return -(-ns // NS_PER_S) * NS_PER_S


def whole_end(lasting_s: float | None, now_ns: int) -> int | None:
    """The end of a span of `lasting_s` seconds from now, at a whole second; None for no end."""
    return None if lasting_s is None else whole(now_ns + round(lasting_s * NS_PER_S))
