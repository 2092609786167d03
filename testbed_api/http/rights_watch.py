"""Ends answers that are still being sent when the right to them ends, within a second.

One task looks for all of them: it asks the registry whether rights have changed, once for however
many answers there are, and decides anew over those whose rights are others or whose time has come.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import structlog

from broker import policy
from broker.clock import Clock, WallClock
from broker.errors import Forbidden, Unavailable
from broker.policy import Target
from broker.rights import Action
from testbed_api.actions.caller import Caller
from testbed_api.registry.rights import PrincipalRights
from testbed_api.registry.rights_cache import RightsCache

LOOK_EVERY_S = 0.2
FRESH_S = 0.8
"""Nothing is sent under a right that was last looked at longer ago: the registry may be away."""
AWAY_S = 10.0
"""An answer whose right could not be looked at for so long is broken off."""

log = structlog.get_logger()


class WatchedRight:
    """The right of a caller to one answer, while that is being sent."""

    def __init__(
        self, watch: "RightsWatch", caller: Caller, action: Action, targets: Sequence[Target]
    ) -> None:
        """Made by `RightsWatch.watching`."""
        self.caller = caller
        self.has_ended = False
        self._watch = watch
        self._action = action
        self._targets = targets
        self._looked_s = asyncio.get_running_loop().time()
        self._decided: PrincipalRights | None = None
        self._again_ns: int | None = 0
        self._limit: asyncio.Timeout | None = None

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Run the body while the right stands; raises Forbidden, also inside it, once it ends."""
        self._must_stand()
        try:
            async with asyncio.timeout(None) as self._limit:
                yield
        except TimeoutError:
            self._must_stand()
            raise
        finally:
            self._limit = None

    async def confirmed(self) -> None:
        """Return once the right was looked at within FRESH_S, and stands; raises Forbidden if it
        does not, Unavailable after AWAY_S.
        """
        self._must_stand()
        if self._watch.is_fresh(self._looked_s):
            return
        try:
            async with asyncio.timeout(AWAY_S):
                while not self._watch.is_fresh(self._looked_s):
                    await self._watch.looked.wait()
        except TimeoutError as exc:
            raise Unavailable(
                f"the registry did not say in {AWAY_S:g} s whether this may still be read",
                hint="ask again when it answers",
            ) from exc

    def _must_stand(self) -> None:
        if self.has_ended:
            raise Forbidden("the right to this answer ended while it was being sent")

    def look(self, rights: Mapping[str, PrincipalRights], now_ns: int) -> None:
        """Decide again if the rights are others than before, or an instant of theirs has come."""
        if self.has_ended:
            return
        its = rights.get(self.caller.id)
        if its is self._decided and (self._again_ns is None or now_ns < self._again_ns):
            return
        self._decided = its
        if its is None or not self._stands(its, now_ns):
            self._end()

    def _stands(self, its: PrincipalRights, now_ns: int) -> bool:
        held = its.under(self.caller.token.secret_hash, now_ns)
        if held is None:
            return False
        token, rights = held
        self._again_ns = now_ns  # an action that listings allow may end with one of them
        if self._action is Action.SUBSCRIBE:
            ends = (token.span.until_ns, policy.until_ns(rights, self.caller.id, now_ns))
            self._again_ns = min((each for each in ends if each is not None), default=None)
        return all(
            policy.decide(rights, self.caller.id, self._action, target, now_ns).allowed
            for target in self._targets
        )

    def _end(self) -> None:
        self.has_ended = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())


class RightsWatch:
    """Watches over the rights to all answers that are being sent."""

    def __init__(self, rights: RightsCache, clock: Clock) -> None:
        self.looked = asyncio.Event()
        """Set, and replaced by another, at the end of each look."""
        self.rights = rights
        """The rights as the registry has them now, for others too."""
        self._clock = clock
        self._watched: set[WatchedRight] = set()
        self._some = asyncio.Event()
        self._looked_s = 0.0
        self._is_away = False

    @contextmanager
    def watching(self, caller: Caller, action: Action, *targets: Target) -> Iterator[WatchedRight]:
        """Watch over a right to all of the targets that the caller had when it asked, until
        left.
        """
        right = WatchedRight(self, caller, action, targets)
        self._watched.add(right)
        self._some.set()
        try:
            yield right
        finally:
            self._watched.discard(right)

    def is_fresh(self, since_s: float) -> bool:
        """Whether the last look, or that instant of the loop's time, is at most FRESH_S ago."""
        now_s = asyncio.get_running_loop().time()
        return now_s - max(self._looked_s, since_s) <= FRESH_S

    async def run(self) -> None:
        """Look every LOOK_EVERY_S while answers are being sent, until cancelled."""
        while True:
            if not self._watched:
                self._some.clear()
            await self._some.wait()
            await self._look()
            await WallClock().sleep(LOOK_EVERY_S)  # real time, as that of the answers

    async def _look(self) -> None:
        began_s = asyncio.get_running_loop().time()
        watched = list(self._watched)
        try:
            rights = await self.rights.current({each.caller.id for each in watched})
        except Unavailable as exc:
            if not self._is_away:
                log.warning("rights to answers cannot be looked at", reason=str(exc))
            self._is_away = True
            return
        self._is_away = False
        now_ns = self._clock.now_ns()
        for each in watched:
            each.look(rights, now_ns)
        self._looked_s = began_s
        looked, self.looked = self.looked, asyncio.Event()
        looked.set()
