"""The counters of a recorder."""

from dataclasses import dataclass


@dataclass(slots=True)
class RecorderCounts:
    """Counters of this process since its start."""

    batches: int = 0
    samples: int = 0
    repeated: int = 0
    dead_letters: int = 0
    gaps: int = 0
    set_aside: int = 0
    flushes: int = 0
    flush_ms: int = 0
    """Time spent in flushes."""
    marks: int = 0
    interruptions: int = 0
    withheld: int = 0
    """Batches not stored for now, as the store does not take them; their publishers have them."""
    quarantined: int = 0
    """Organisations with samples that are stored apart, as the store refuses them or is slow."""
    checked: int = 0
    """Batches whose samples were looked up in the store, as their time stamps might be taken."""
    moved: int = 0
    """Samples of these that got another time stamp, because theirs was taken."""
    mismatches: int = 0
    """Organisations in which store and ledger were found not to belong together."""
    waiting: int = 0
