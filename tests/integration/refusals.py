"""asyncua's server as it refuses what others refuse: services, items, large requests, sessions."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.monitored_item_service import MonitoredItemService
from asyncua.server.subscription_service import SubscriptionService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

Codes = ua.StatusCodes


@dataclass
class Refusals:
    """What every server of this process refuses, from now on and until it is changed.

    services: fault of a service, by its method.  items: status of each item on these nodes.  reads:
    status of each value of these nodes.  most_operations: in one request.  most_items: in one
    subscription, or `on_server` on all.  most_subscriptions: on the server.  filters: whether items
    may have one.  calls: requests of each method, with `!` behind those that were too large.
    """

    services: dict[str, int] = field(default_factory=dict)
    items: dict[ua.NodeId, int] = field(default_factory=dict)
    reads: dict[ua.NodeId, int] = field(default_factory=dict)
    most_operations: int = 10_000
    too_large: int = Codes.BadTooManyOperations
    most_items: int = 10_000
    on_server: bool = False
    most_subscriptions: int = 10_000
    filters: bool = True
    calls: Counter[str] = field(default_factory=Counter)

    def ask(self, method: str, operations: int) -> None:
        """Raise the fault of a service, if there is any."""
        self.calls[method] += 1
        if operations > self.most_operations:
            self.calls[f"{method}!"] += 1
            raise ServiceError(self.too_large)
        if method in self.services:
            raise ServiceError(self.services[method])

    def item(self, service: MonitoredItemService, request: ua.MonitoredItemCreateRequest) -> int:
        """The status of an item; 0 for none."""
        others: Collection[Any] = [service]
        if self.on_server:
            subscriptions = service.isub.subscription_service.subscriptions.values()
            others = [each.monitored_item_srv for each in subscriptions]
        if sum(len(each._monitored_items) for each in others) >= self.most_items:
            return Codes.BadTooManyMonitoredItems
        has_filter = type(request.RequestedParameters.Filter).__name__ == "DataChangeFilter"
        if has_filter and not self.filters:
            return Codes.BadMonitoredItemFilterUnsupported
        return self.items.get(request.ItemToMonitor.NodeId, 0)


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> Refusals:
    """Let asyncua's server refuse; nothing as long as nothing is changed."""
    refusing = Refusals()
    _patch_reads(monkeypatch, refusing)
    _patch_items(monkeypatch, refusing)
    _patch_subscriptions(monkeypatch, refusing)
    real_session = InternalServer.create_session

    def create_session(self, *args: Any, **named: Any) -> Any:
        if named.get("external") or (len(args) > 2 and args[2]):
            refusing.ask("create_session", 0)
        return real_session(self, *args, **named)

    monkeypatch.setattr(InternalServer, "create_session", create_session)
    return refusing


def _patch_reads(monkeypatch: pytest.MonkeyPatch, refusing: Refusals) -> None:
    real = InternalSession.read

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        if self.external:
            refusing.ask("read", len(params.NodesToRead or ()))
        answers = await real(self, params)
        for at, node in enumerate(params.NodesToRead if self.external else ()):
            code = refusing.reads.get(node.NodeId)
            if code is not None and node.AttributeId == ua.AttributeIds.Value:
                answers[at] = ua.DataValue(StatusCode=ua.StatusCode(ua.UInt32(code)))
        return answers

    monkeypatch.setattr(InternalSession, "read", read)


def _patch_items(monkeypatch: pytest.MonkeyPatch, refusing: Refusals) -> None:
    real_call = InternalSession.create_monitored_items
    real: Callable[..., Awaitable[Any]] = MonitoredItemService._create_data_change_monitored_item

    async def create_monitored_items(self, params: ua.CreateMonitoredItemsParameters) -> Any:
        refusing.ask("create_monitored_items", len(params.ItemsToCreate))
        return await real_call(self, params)

    async def create(self, request: ua.MonitoredItemCreateRequest) -> Any:
        if code := refusing.item(self, request):
            return ua.MonitoredItemCreateResult(StatusCode=ua.StatusCode(ua.UInt32(code)))
        return await real(self, request)

    monkeypatch.setattr(InternalSession, "create_monitored_items", create_monitored_items)
    monkeypatch.setattr(MonitoredItemService, "_create_data_change_monitored_item", create)


def _patch_subscriptions(monkeypatch: pytest.MonkeyPatch, refusing: Refusals) -> None:
    real = SubscriptionService.create_subscription

    async def create_subscription(self, *args: Any, **named: Any) -> Any:
        refusing.ask("create_subscription", 0)
        if len(self.subscriptions) >= refusing.most_subscriptions:
            raise ServiceError(Codes.BadTooManySubscriptions)
        result = await real(self, *args, **named)
        self.subscriptions[result.SubscriptionId].subscription_service = self
        return result

    monkeypatch.setattr(SubscriptionService, "create_subscription", create_subscription)
