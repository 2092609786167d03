"""The parameters that a server revised: queues and sampling intervals too poor for the mapping.

Pure.  Source: OPC UA Part 4, 5.13.1.2 (Sampling interval) and 5.13.1.5 (Queue parameters).
"""

from collections.abc import Iterator, Sequence

from broker.streams import Trigger
from gateway.links.opcua.subscription import MonitoredItem, Subscription, samples_a_publish
from gateway.mapping.model import StreamMapping

Named = Iterator[tuple[MonitoredItem, str, str]]
"""An item, the name of a signal that it feeds, and the sentence about it."""


def alarms(
    streams: Sequence[StreamMapping], subscriptions: Sequence[Subscription]
) -> dict[str, str | None]:
    """The sentence about the first signal of each kind, by the subject of its alarm."""
    return {
        "queues": next((sentence for *_, sentence in short_queues(streams, subscriptions)), None),
        "sampling": next((sentence for *_, sentence in slow_samples(streams, subscriptions)), None),
        "filters": next((sentence for *_, sentence in no_filters(streams, subscriptions)), None),
    }


def short_queues(streams: Sequence[StreamMapping], subscriptions: Sequence[Subscription]) -> Named:
    """The items whose queue is shorter than what comes between two publishes."""
    for subscription, item, name in _monitored(streams, subscriptions):
        due = samples_a_publish(streams, item, subscription.interval_s)
        if not due and item.queue <= 1:
            yield (
                item,
                name,
                (
                    f"the server keeps one value of {name!r} between publishes: if it changes twice"
                    " meanwhile, the first is lost unseen; state a period_s"
                ),
            )
        elif item.queue < due:
            yield (
                item,
                name,
                (
                    f"the server keeps {item.queue} samples of {name!r} between publishes, and"
                    f" {due:.0f} come: use a shorter publishing_interval_s"
                ),
            )


def slow_samples(streams: Sequence[StreamMapping], subscriptions: Sequence[Subscription]) -> Named:
    """The items at which the server looks less often than their period."""
    for subscription, item, name in _monitored(streams, subscriptions):
        due = samples_a_publish(streams, item, subscription.interval_s)
        if not due:
            continue
        period_s = subscription.interval_s / due
        # asyncua's server answers the publishing interval, and samples at every write
        if item.sampling_s > period_s and item.sampling_s != subscription.interval_s:
            yield (
                item,
                name,
                (
                    f"the server looks at {name!r} every {item.sampling_s:g} s, and its period is"
                    f" {period_s:g} s: values in between never come"
                ),
            )


def no_filters(streams: Sequence[StreamMapping], subscriptions: Sequence[Subscription]) -> Named:
    """The items that the server monitors without the trigger `timestamp`."""
    for _, item, name in _monitored(streams, subscriptions):
        if not item.has_filter and streams[item.feeds[0][0]].spec.trigger is Trigger.TIMESTAMP:
            yield (
                item,
                name,
                (
                    f"the server takes no trigger for {name!r}: a value that repeats with a new"
                    " time stamp does not come; write a period_s, and it is polled"
                ),
            )


def _monitored(
    streams: Sequence[StreamMapping], subscriptions: Sequence[Subscription]
) -> Iterator[tuple[Subscription, MonitoredItem, str]]:
    """The items that the server monitors, each with the name of its first signal."""
    for subscription in subscriptions:
        for item in subscription.items.values():
            if item.id:
                stream, signal = item.feeds[0]
                yield subscription, item, streams[stream].spec.names[signal]
