"""Takes samples out of a flush that lie where a store does not want them.  Pure.

A store keeps a file, and memory, for each week in which samples of an organisation lie.  So one
publisher whose time stamps are spread over centuries would take both from all others.  In `live` a
stream takes samples near their arrival, as its spec says.  The space of a run has a time of its
own, which may be any: there the number of weeks is bounded.

A week whose first samples come costs the store about as long as a thousand requests, so those of
many new weeks are stored apart, a few weeks at a time.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from broker.batch import Times
from broker.clock import DAY_NS, DAY_S, NS_PER_S
from broker.namespace import LIVE
from broker.streams import StreamSpec
from testbed_api.recorder import bulk_decode
from testbed_api.recorder.flush import BlockOrigin, DocumentBlock, Flush, FlushTime
from testbed_api.stores.port import Block

MOST_LETTERS = 20
"""Samples of a message that become a dead letter each; of more, the message is one as a whole."""
WEEK_NS = 7 * DAY_NS
MOST_WEEKS = 530
"""Weeks in which an organisation may have samples of runs, counted since the recorder's start."""

MOST_NEW_WEEKS = 8
"""Weeks of an organisation without samples so far that one write may have: InfluxDB takes 10 to
30 ms for each, in which it takes nobody's samples."""

RunWeeks = defaultdict[str, set[int]]
"""The weeks since 1970 in which an organisation has samples of runs."""


class KnownWeeks:
    """The weeks in which each organisation had samples stored since the recorder's start."""

    def __init__(self) -> None:
        self.of_runs: RunWeeks = defaultdict(set)
        self._known: dict[str, set[int]] = defaultdict(set)

    def new(self, flush: Flush) -> dict[str, set[int]]:
        """The weeks of a flush that are not known, by organisation."""
        weeks: dict[str, set[int]] = defaultdict(set)
        for block in flush.blocks:
            for frame in block.frames:
                weeks[block.spec.address.organisation].update(_weeks_of(frame.time_ns))
        return {name: each - self._known[name] for name, each in weeks.items()}

    def add(self, weeks: Mapping[str, set[int]]) -> None:
        """Add weeks whose samples are stored."""
        for organisation, each in weeks.items():
            self._known[organisation] |= each


def scattered(weeks: Mapping[str, set[int]]) -> dict[str, str]:
    """The organisations with too many of these new weeks, with the reason.  weeks: of a flush."""
    return {
        organisation: f"its samples lie in {len(each)} weeks in which it had none"
        for organisation, each in weeks.items()
        if len(each) > MOST_NEW_WEEKS
    }


def _weeks_of(times: Times) -> set[int]:
    """The weeks since 1970 of time stamps, mostly found out by the first and the last of them."""
    if not len(times):
        return set()
    ends = {int(times.min()) // WEEK_NS, int(times.max()) // WEEK_NS}
    is_near = max(ends) - min(ends) <= 1
    return ends if is_near else set(np.unique(times // WEEK_NS).tolist())


def enforce(flush: Flush, run_weeks: RunWeeks) -> None:
    """Turn the samples that are not wanted into dead letters; new weeks of runs are noted."""
    unwanted = [
        at
        for at, block in enumerate(flush.blocks)
        if not all(
            _are_wanted(block, frame.time_ns, flush.time, run_weeks) for frame in block.frames
        )
    ]
    for at in reversed(unwanted):
        _divide(flush, at, run_weeks)


def spans(spec: StreamSpec, time: FlushTime) -> list[tuple[int, int]]:
    """The spans that a stream takes samples of, with the first and the last instant of each.

    One is around the clock as it is, one around the clock as it was before it was set: a wrong one
    makes no good sample a dead letter, and what lies between them is not wanted.
    """
    past_ns, future_ns = (
        round(limit_s * NS_PER_S) for limit_s in (spec.past_limit_s, spec.future_limit_s)
    )
    return [(now_ns - past_ns, now_ns + future_ns) for now_ns in (time.now_ns, time.steady_ns)]


def _are_wanted(block: Block, times: Times, time: FlushTime, run_weeks: RunWeeks) -> bool:
    """Whether all samples of a frame are wanted, found out by the first and the last of them.

    False also where each of them must be looked at.
    """
    if not len(times):
        return True
    earliest_ns, latest_ns = int(times.min()), int(times.max())
    if block.space == LIVE:
        return any(
            first_ns <= earliest_ns and latest_ns <= last_ns
            for first_ns, last_ns in spans(block.spec, time)
        )
    first, last = earliest_ns // WEEK_NS, latest_ns // WEEK_NS
    known = run_weeks[block.spec.address.organisation]
    new = {first, last} - known
    if last - first > 1 or len(known) + len(new) > MOST_WEEKS:
        return False
    known |= new
    return True


def _wanted(
    block: Block, times: Times, time: FlushTime, run_weeks: RunWeeks
) -> npt.NDArray[np.bool_]:
    """A mask of the samples of a frame that are wanted."""
    if block.space == LIVE:
        now, steady = (
            (first_ns <= times) & (times <= last_ns)
            for first_ns, last_ns in spans(block.spec, time)
        )
        return now | steady
    weeks, known = times // WEEK_NS, run_weeks[block.spec.address.organisation]
    new = sorted(set(weeks.tolist()) - known)
    known |= set(new[: max(MOST_WEEKS - len(known), 0)])
    return np.isin(weeks, list(known))


def _divide(flush: Flush, at: int, run_weeks: RunWeeks) -> None:
    """Leave in a block the samples that are wanted; the others become dead letters.

    at: index of the block.
    """
    block, origin = flush.blocks[at], flush.origins[at]
    masks = [_wanted(block, frame.time_ns, flush.time, run_weeks) for frame in block.frames]
    sizes, start = [], 0
    for part, (message, size) in zip(flush.split_by_document(at), origin.messages, strict=True):
        own = masks if len(origin.messages) == 1 else [masks[0][start : start + size]]
        if not all(mask.all() for mask in own):
            _bury(flush, part, own)
        sizes.append((message, int(sum(mask.sum() for mask in own))))
        start += size
    frames = zip(block.frames, masks, strict=True)
    near = tuple(bulk_decode.select(frame, mask) for frame, mask in frames if mask.any())
    flush.blocks[at : at + 1] = [Block(block.space, block.spec, near)] if near else []
    wanted = tuple((message, size) for message, size in sizes if size)
    flush.origins[at : at + 1] = [BlockOrigin(origin.life, wanted)] if near else []


def _bury(flush: Flush, part: DocumentBlock, masks: Sequence[npt.NDArray[np.bool_]]) -> None:
    """Make dead letters of the samples of a message that are not wanted."""
    block, frames = part.block, zip(part.block.frames, masks, strict=True)
    far = tuple(bulk_decode.select(frame, ~mask) for frame, mask in frames if not mask.all())
    beyond = part._replace(block=Block(block.space, block.spec, far))
    reason = _reason(block)
    if len(beyond.block) > MOST_LETTERS:
        count = f"{len(beyond.block)} of its {len(block)} samples are not stored"
        flush.dead_letter(part.message, f"{count}: {reason}")
    else:
        flush.dead_letter_part(beyond, reason)


def _reason(block: Block) -> str:
    if block.space != LIVE:
        return f"its organisation has samples of runs in {MOST_WEEKS} weeks already"
    limits_s = (block.spec.past_limit_s, block.spec.future_limit_s)
    past, future = (f"{limit_s / DAY_S:g}" for limit_s in limits_s)
    return (
        f"its time is too far from its arrival: the stream takes {past} days before and {future}"
        " days after (past_limit_s and future_limit_s of its spec)"
    )
