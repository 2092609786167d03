"""Connect requests are answered side by side, the lowest rank first, and none too late."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from broker.backends.nats import connect_requests
from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.backends.nats.connect_requests import ConnectRequests
from broker.clock import WallClock
from broker.process import tasks

EVERYTHING = Permissions(frozenset({"t/#"}), frozenset({"t/#"}))


class Desk:
    """Requests by name, answered as soon as `go` is set; answers in their order."""

    def __init__(self, *, first: str = "") -> None:
        self.go = asyncio.Event()
        self.begun: list[str] = []
        self.answered: list[str] = []
        self.requests = ConnectRequests(self._authorize, lambda each: each.principal != first)

    async def _authorize(self, request: ConnectRequest) -> Permissions | None:
        self.begun.append(request.principal)
        await self.go.wait()
        if request.principal == "bug":
            raise RuntimeError("nobody foresaw this")
        return EVERYTHING

    def put(self, *names: str) -> None:
        for name in names:

            async def respond(permissions: Permissions | None, name: str = name) -> None:
                assert permissions is EVERYTHING
                self.answered.append(name)

            request = ConnectRequest(principal=name, secret="s", client_id=name)
            self.requests.put(request, respond)

    @asynccontextmanager
    async def open(self):
        async with tasks.background({"requests": self.requests.run()}):
            yield
            await settled()


async def settled() -> None:
    for _ in range(10):
        await WallClock().sleep(0)


async def test_many_are_answered_side_by_side():
    desk = Desk()
    async with desk.open():
        desk.put(*map(str, range(connect_requests.AT_ONCE + 10)))
        await settled()
        assert len(desk.begun) == connect_requests.AT_ONCE
        desk.go.set()
    assert len(desk.answered) == connect_requests.AT_ONCE + 10


async def test_those_who_wait_are_answered_by_rank_and_then_as_they_came():
    desk = Desk(first="gateway")
    desk.go.set()
    desk.put("a", "b", "gateway", "c")
    async with desk.open():
        pass
    assert desk.answered == ["gateway", "a", "b", "c"]


async def test_what_is_too_late_is_neither_begun_nor_answered(monkeypatch):
    desk = Desk()
    desk.put("old")
    monkeypatch.setattr(connect_requests, "LATE_S", -1.0)
    async with desk.open():
        await settled()
        assert (desk.begun, desk.requests.dropped) == ([], 1)
        monkeypatch.setattr(connect_requests, "LATE_S", 10.0)
        desk.put("slow")
        await settled()
        monkeypatch.setattr(connect_requests, "ANSWER_S", -1.0)
        desk.go.set()
    assert (desk.begun, desk.answered, desk.requests.dropped) == (["slow"], [], 2)


async def test_a_request_that_cannot_be_answered_ends_no_other():
    desk = Desk()
    desk.go.set()
    async with desk.open():
        desk.put(*["bug"] * (connect_requests.AT_ONCE + 1), "next")
    assert desk.answered == ["next"]


@pytest.mark.parametrize("count", [0, 1])
async def test_it_ends_whatever_waits(count):
    desk = Desk()
    async with desk.open():
        desk.put(*["waits"] * count)
    assert desk.answered == []
