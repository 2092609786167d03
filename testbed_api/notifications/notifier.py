"""Queues notices in the transaction of the change that they are about."""

from dataclasses import dataclass

from testbed_api.domain.notices import Channel, Notice, QueuedNotice
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """Queues notices for the channels that are set up; for none it does nothing."""

    channels: frozenset[Channel] = frozenset()

    async def queue(self, change: Registry, notice: Notice, now_ns: int) -> None:
        """Queue a notice for each channel: one for the webhook, and one for each person's mail."""
        people: list[tuple[Channel, str]] = []
        if Channel.WEBHOOK in self.channels:
            people.append((Channel.WEBHOOK, ""))
        if Channel.MAIL in self.channels:
            recipients = await change.emails.recipients(notice.organisation, notice.people, now_ns)
            people += [(Channel.MAIL, person) for person in recipients]
        await change.notices.add(
            [
                QueuedNotice(
                    channel=channel,
                    organisation=notice.organisation,
                    person=person,
                    content=notice.content,
                    queued_ns=now_ns,
                )
                for channel, person in people
            ]
        )
