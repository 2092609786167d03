"""Watching a connection: whether the server lives, what is silent, what is missing.

Health is freshness, not a connection: a subscription that says nothing beyond its keep-alives, a
server that does not answer and a node that is gone each end in a break or an alarm.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from asyncua import Client, ua

from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from broker.streams import Trigger
from gateway.links.opcua.data_changes import NO_TIME, NOTHING, OTHER, Changes
from gateway.links.opcua.delivery import Outlet
from gateway.links.opcua.sequence import Follower
from gateway.links.opcua.session import Found, chunks, resolve
from gateway.links.opcua.subscription import Subscription
from gateway.links.opcua.types import instant_of
from gateway.mapping.model import Mapping
from gateway.mapping.node_names import NodeName

LOOK_EVERY_S = 1.0
LATE_S = 0.5
"""A look that comes later than this was held up by ourselves."""
BEAT_EVERY_S = 2.0
BEAT_WITHIN_S = 5.0
"""A server that says nothing and answers nothing is given up after both: within 8 s."""
RETRY_MISSING_S = 30.0
RETRY_ALL_MISSING_S = 5.0
LEAST_PATIENCE_S = 8.0
"""So long a signal of trigger `timestamp` may say nothing before its node is looked for."""
PERIODS_OF_PATIENCE = 3


class Watcher:
    """One connection's."""

    def __init__(
        self,
        client: Client,
        mapping: Mapping,
        subscriptions: Sequence[Subscription],
        *,
        clock: Clock,
        per_call: int,
    ) -> None:
        """per_call: nodes in one request."""
        self._client = client
        self._mapping = mapping
        self._subscriptions = subscriptions
        self._clock = clock
        self._per_call = per_call
        self._patience_ns = [self._patience_of(one) for one in subscriptions]

    async def keep_alives(self, follower: Follower) -> None:
        """Raise Unavailable when a subscription is silent beyond its keep-alives."""
        loop = asyncio.get_running_loop()
        while True:
            before_s = loop.time()
            await self._clock.sleep(LOOK_EVERY_S)
            late_s = loop.time() - before_s - LOOK_EVERY_S
            if late_s > LATE_S:
                follower.pardon(late_s)
            if follower.is_busy:
                continue
            for one in self._subscriptions:
                if loop.time() - one.heard_at_s > one.quiet_s:
                    raise Unavailable(
                        f"a subscription of {self._mapping.server.url} says nothing"
                        f" for {one.quiet_s:.0f} s"
                    )

    async def beat(self, follower: Follower) -> None:
        """Raise Unavailable when the server answers nothing, whatever its keep-alives promise."""
        loop = asyncio.get_running_loop()
        while True:
            await self._clock.sleep(BEAT_EVERY_S)
            asked_at_s = loop.time()
            try:
                async with asyncio.timeout(BEAT_WITHIN_S):
                    await self._client.nodes.server_state.read_value()
            except TimeoutError as exc:
                if follower.heard_at_s < asked_at_s and not follower.is_busy:
                    raise Unavailable(
                        f"no sign of life from {self._mapping.server.url}"
                        f" for {loop.time() - asked_at_s:.0f} s"
                    ) from exc

    # --- what is silent --------------------------------------------------------------------------

    async def ask_silent(self, outlet: Outlet) -> None:
        """Read what says nothing for long.

        With trigger `value` the answer is a sample.  With trigger `timestamp` silence is just that,
        unless the node is gone.
        """
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            for subscription, patience_ns in zip(
                self._subscriptions, self._patience_ns, strict=True
            ):
                now_ns, sorter = self._clock.now_ns(), subscription.sorter
                silent = (now_ns - sorter.heard_ns >= patience_ns).nonzero()[0]
                for handles in chunks(silent.tolist(), self._per_call):
                    answers = await self._read([subscription.items[one] for one in handles])
                    sorter.heard_ns[handles] = self._clock.now_ns()
                    read = [
                        (handle, answer)
                        for handle, answer in zip(handles, answers, strict=True)
                        if self._is_sample(subscription.items[handle]) or _is_gone(answer)
                    ]
                    if read:
                        await outlet.hand_on(subscription, _changes(read))

    async def _read(self, items: Sequence[Any]) -> list[ua.DataValue]:
        request = ua.ReadParameters()
        request.TimestampsToReturn = ua.TimestampsToReturn.Server
        request.NodesToRead = [
            ua.ReadValueId(item.found.node, ua.AttributeIds.Value) for item in items
        ]
        return await self._client.uaclient.read(request)

    def _is_sample(self, item: Any) -> bool:
        streams = self._mapping.streams
        return all(streams[one].spec.trigger is Trigger.VALUE for one, _ in item.feeds)

    def _patience_of(self, subscription: Subscription) -> npt.NDArray[np.int64]:
        """How long each item may say nothing, in ns by handle."""
        found = np.full(len(subscription.items) + 1, 2**62, np.int64)
        for handle, item in subscription.items.items():
            specs = [self._mapping.streams[stream].spec for stream, _ in item.feeds]
            patience_s = min(
                one.max_silence_s
                if one.trigger is Trigger.VALUE
                else max(LEAST_PATIENCE_S, PERIODS_OF_PATIENCE * one.period_s)
                for one in specs
            )
            found[handle] = round(patience_s * NS_PER_S)
        return found

    # --- what is missing -------------------------------------------------------------------------

    async def look_again(self, names: Sequence[NodeName], before: Sequence[Found]) -> None:
        """Nodes that were missing or are gone: when one turns up, begin anew with all of them."""
        while True:
            await self._clock.sleep(RETRY_MISSING_S if self._subscriptions else RETRY_ALL_MISSING_S)
            gone = {
                one.items[handle].found.node
                for one in self._subscriptions
                for handle in one.sorter.gone.nonzero()[0].tolist()
            }
            if not gone and not any(one.problem for one in before):
                continue
            found = await resolve(self._client, names, per_call=self._per_call)
            for old, new in zip(before, found, strict=True):
                if not new.problem and (old.problem or old.node in gone):
                    raise Unavailable("a node that was missing has turned up")


def _is_gone(answer: ua.DataValue) -> bool:
    codes = (ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid)
    return answer.StatusCode is not None and answer.StatusCode.value in codes


def _changes(read: Sequence[tuple[int, ua.DataValue]]) -> Changes:
    """Values that were read, as if they had been published at the time of the server's answer."""
    answers = [answer for _, answer in read]
    values = [one.Value.Value if one.Value is not None else None for one in answers]
    others = np.empty(len(values), np.object_)
    for row, value in enumerate(values):
        others[row] = value  # one by one: an array among them is one value
    times = [one.ServerTimestamp for one in answers]
    codes = [one.StatusCode.value if one.StatusCode is not None else 0 for one in answers]
    return Changes(
        np.array([handle for handle, _ in read], np.uint32),
        np.array([NO_TIME if one is None else instant_of(one) for one in times], np.int64),
        np.array(codes, np.uint32),
        np.array([NOTHING if one is None else OTHER for one in values], np.uint8),
        np.empty(0, np.float64),
        np.empty(0, np.int64),
        others,
    )
