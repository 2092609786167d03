"""Recordings on the server: which streams they hold, who took them, and what became of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from broker.namespace import StreamAddress
from broker.recordings.server_states import RecordingState
from broker.rights import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStream:
    """A stream of a recording, with its samples once they are known.

    grants: numbers of those under which it was read, none for an own stream.  first_ns, last_ns:
    times of its first and last sample, None without any.
    """

    stream: StreamAddress
    grants: tuple[int, ...] = ()
    rows: int = 0
    samples: int = 0
    first_ns: int | None = None
    last_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecording:
    """A recording that the server makes, holds or held.

    organisation, made_by: whose it is, and the principal that asked for it.  from_ns, to_ns: its
    span, the end not included.  reason: why it failed, or was deleted.  done_ns: when it was
    complete or failed.  sha256, size_bytes: of all its files, once it is complete.  deleted_by:
    None where a retention deleted it.  maker: the API process that makes it.
    """

    name: str
    note: str
    organisation: str
    made_by: str
    space: str
    from_ns: int
    to_ns: int
    created_ns: int
    streams: tuple[HeldStream, ...]
    maker: str = ""
    state: RecordingState = RecordingState.MAKING
    reason: str = ""
    done_ns: int | None = None
    sha256: str | None = None
    size_bytes: int = 0
    deleted_ns: int | None = None
    deleted_by: str | None = None
    id: int = 0

    @property
    def entries(self) -> Iterator[Entry]:
        """Its streams, in its space."""
        return (Entry(self.space, each.stream) for each in self.streams)

    @property
    def owners(self) -> list[str]:
        """The organisations whose streams it holds, those of others before its own."""
        owners = {each.stream.organisation for each in self.streams}
        return sorted(owners, key=lambda owner: (owner == self.organisation, owner))

    @property
    def samples(self) -> int:
        """The number of samples of all streams."""
        return sum(each.samples for each in self.streams)
