"""Notices about requests and grants: queued with the change, delivered by mail and webhook."""

import ssl
from dataclasses import dataclass, replace

import orjson
import pytest
from pydantic import SecretStr

from broker.clock import NS_PER_S
from broker.errors import Invalid
from broker.rights import Entry, Role
from testbed_api.actions.grants import GrantActions
from testbed_api.actions.pauses import PauseActions
from testbed_api.actions.proposals import SpanProposal, WantedStreams
from testbed_api.audit.journal import Journal
from testbed_api.domain import notices as domain_notices
from testbed_api.domain import organisations
from testbed_api.domain.audit import AuditOutcome
from testbed_api.domain.grants import GrantSelection
from testbed_api.domain.notices import MOST_ATTEMPTS, Channel, QueuedNotice
from testbed_api.notifications import channels, webhook
from testbed_api.notifications.delivery import NoticeDelivery
from testbed_api.notifications.notifier import Notifier
from testbed_api.registry.audit import EventFilter
from testbed_api.registry.notices import MOST_WAITING
from testbed_api.registry.registry import Registry
from testbed_api.settings import ServerSettings
from tests.integration.office import MILL, PEOPLE, RIG, T0, Office, context
from tests.services import LOOPBACK, certificates, free_port
from tests.services.notice_listeners import http_listener, smtp_server

SECRET = "a secret of sixteen letters"
BOTH = frozenset(Channel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Acts that queue notices, and their delivery to two listeners."""

    office: Office
    grants: GrantActions
    pauses: PauseActions
    delivery: NoticeDelivery
    smtp_port: int
    http_port: int

    async def ask(self) -> GrantSelection:
        cora = await self.office.caller("cora")
        wanted = WantedStreams(equipment=[("live", RIG.owner)])
        outcome = await self.grants.request(
            context("cora"), cora, wanted, purpose="to find the leak", proposal=SpanProposal()
        )
        return GrantSelection(numbers=tuple(each.id for each in outcome.grants))

    async def waiting(self) -> int:
        return sum(each.waiting for each in await self.office.registry.notices.backlog())

    async def events(self) -> list[tuple[AuditOutcome, str]]:
        links = await self.office.registry.audit.events(EventFilter(), 0, 1_000)
        events = [link.event for link in links if link.event.action == "notify"]
        return [(event.outcome, event.target) for event in events]


def settings(folder, smtp_port: int, http_port: int, **changed: object) -> ServerSettings:
    values = {
        "folder": folder,
        "notify_webhook": f"http://{LOOPBACK}:{http_port}/testbed",
        "notify_webhook_secret": SecretStr(SECRET),
        "notify_smtp": f"smtp://{LOOPBACK}:{smtp_port}",
        "notify_smtp_from": "testbed@testbed.example",
    }
    return ServerSettings(**values | changed)


@pytest.fixture
async def post(office, tmp_path) -> Post:
    registry = Registry(office.registry._engine)
    async with registry.unaudited_change() as change:
        for person in ("fay", "otto", "cora", "ann"):
            await change.emails.set(person, f"{person}@{PEOPLE[person][0]}.example")
        boss = organisations.person("boss", "company", {Role.OWNER}, T0)
        await change.principals.add(boss)
        await change.emails.set("boss", "boss@company.example")
    smtp_port, http_port = free_port(), free_port()
    notifier = Notifier(channels=BOTH)
    return Post(
        office=office,
        grants=replace(office.grants, notifier=notifier),
        pauses=replace(office.pauses, notifier=notifier),
        delivery=NoticeDelivery(
            registry=registry,
            journal=Journal(registry),
            senders=channels.senders(settings(tmp_path, smtp_port, http_port), office.clock),
            clock=office.clock,
        ),
        smtp_port=smtp_port,
        http_port=http_port,
    )


async def test_a_request_is_told_to_the_owners_by_mail_and_signed_to_the_webhook(post):
    async with smtp_server(post.smtp_port) as mailbox, http_listener(post.http_port) as posts:
        await post.ask()
        await post.delivery.deliver_due()
        (mail,) = mailbox.mails
        assert mail["To"] == "fay@factory.example"  # not otto, who owns nothing
        assert mail["Subject"] == "[testbed] cora asked for 2 streams of factory/rig"
        assert 'Purpose: "to find the leak"' in mail.get_content().replace("\n", " ")
        (taken,) = posts.taken
        headers, body = taken
        expected = webhook.signature(SECRET.encode(), headers["x-testbed-timestamp"], body)
        assert headers["x-testbed-signature"] == f"sha256={expected}"
        content = orjson.loads(body)
        about = (content["kind"], content["organisation"], content["grants"])
        assert about == ("asked", "factory", [1, 2])
        await post.delivery.deliver_due()
        assert (len(mailbox.mails), len(posts.taken)) == (1, 1)
    assert sorted(await post.events()) == [
        (AuditOutcome.ALLOWED, "mail to fay"),
        (AuditOutcome.ALLOWED, "webhook to its listener"),
    ]


async def test_the_webhook_gets_an_id_for_each_notice_also_after_the_others_are_delivered(post):
    cora, fay = await post.office.caller("cora"), await post.office.caller("fay")
    async with smtp_server(post.smtp_port), http_listener(post.http_port) as posts:
        numbers = await post.ask()
        await post.delivery.deliver_due()
        await post.grants.approve(context("fay"), fay, numbers, SpanProposal())
        await post.delivery.deliver_due()
        await post.grants.withdraw(context("cora"), cora, numbers)
        await post.delivery.deliver_due()
    kinds = [orjson.loads(body)["kind"] for _, body in posts.taken]
    ids = [orjson.loads(body)["id"] for _, body in posts.taken]
    assert kinds == ["asked", "granted", "withdrawn"]
    assert len(set(ids)) == 3


async def test_a_decision_an_end_and_a_pause_are_told_to_who_asked_and_the_owners(post):
    fay, cora = await post.office.caller("fay"), await post.office.caller("cora")
    async with smtp_server(post.smtp_port) as mailbox, http_listener(post.http_port):
        numbers = await post.ask()
        await post.grants.approve(context("fay"), fay, numbers, SpanProposal())
        await post.pauses.pause(context("fay"), fay, None, RIG.owner)
        await post.pauses.pause(context("fay"), fay, None, RIG.owner)  # twice is once
        await post.pauses.pause(context("fay"), fay, None, MILL.owner)  # nobody holds it
        await post.pauses.resume(context("fay"), fay, None, RIG.owner)
        first, second = (GrantSelection(numbers=(number,)) for number in numbers.numbers)
        await post.grants.revoke(context("fay"), fay, first, "it is over")
        await post.grants.withdraw(context("cora"), cora, second)
        for _ in range(2):
            await post.delivery.deliver_due()
    sent = [(mail["To"].partition("@")[0], mail["Subject"]) for mail in mailbox.mails]
    assert sent == [
        ("fay", "[testbed] cora asked for 2 streams of factory/rig"),
        ("boss", "[testbed] fay granted 2 streams of factory/rig"),
        ("cora", "[testbed] fay granted 2 streams of factory/rig"),
        ("boss", "[testbed] factory paused your grants of factory/rig"),
        ("boss", "[testbed] factory resumed your grants of factory/rig"),
        ("boss", "[testbed] fay revoked a stream of factory/rig"),
        ("cora", "[testbed] fay revoked a stream of factory/rig"),
        ("fay", "[testbed] cora withdrew a stream of factory/rig"),
    ]


async def test_what_fails_holds_up_nobody_and_arrives_once_the_other_side_is_back(post):
    await post.ask()  # nobody listens
    await post.delivery.deliver_due()
    backlog = await post.office.registry.notices.backlog()
    assert [(each.channel, each.waiting, each.failed) for each in backlog] == [
        (Channel.MAIL, 1, 1),
        (Channel.WEBHOOK, 1, 1),
    ]
    assert all(each.reason for each in backlog)
    assert backlog[1].reason == "the webhook did not answer: All connection attempts failed"
    again = replace(post.delivery, journal=Journal(post.delivery.registry))  # after a restart
    async with smtp_server(post.smtp_port) as mailbox, http_listener(post.http_port) as posts:
        await again.deliver_due()
        assert not posts.taken  # not before its pause is over
        mailbox.refuses, posts.status = 451, 500
        await post.office.clock.advance(11)
        await again.deliver_due()
        reasons = {each.reason for each in await post.office.registry.notices.backlog()}
        assert reasons == {
            "the mail server did not take a mail: it answered 451",
            "the webhook answered 500",
        }
        mailbox.refuses, posts.status = 0, 200
        await post.office.clock.advance(31)
        await again.deliver_due()
        assert len(mailbox.mails) == 1
    assert await post.waiting() == 0


async def test_what_never_arrives_is_given_up_and_that_is_in_the_audit(post):
    await post.ask()
    for _ in range(MOST_ATTEMPTS):
        await post.delivery.deliver_due()
        await post.office.clock.advance(6 * 3_600 + 1)
    assert await post.waiting() == 0
    assert sorted(await post.events()) == [
        (AuditOutcome.FAILED, "mail to fay"),
        (AuditOutcome.FAILED, "webhook to its listener"),
    ]


async def test_a_notice_that_is_being_sent_is_nobody_elses(post):
    await post.ask()
    notices, now_ns = post.delivery.registry.notices, post.office.clock.now_ns()
    assert len(await notices.claim(now_ns, now_ns + NS_PER_S)) == 2
    assert await notices.claim(now_ns, now_ns + NS_PER_S) == []
    await post.office.clock.advance(1)
    assert len(await notices.claim(post.office.clock.now_ns(), now_ns + 9 * NS_PER_S)) == 2


async def test_the_queue_is_bounded_and_the_audit_says_what_was_left_out(post):
    waiting = QueuedNotice(
        channel=Channel.WEBHOOK, organisation="factory", person="", content={}, queued_ns=T0
    )
    async with post.delivery.registry.unaudited_change() as change:
        await change.notices.add([waiting] * (MOST_WAITING - 1))
    await post.ask()
    assert await post.waiting() == MOST_WAITING
    assert orjson.loads((await post.office.last_event()).details)["notices_left_out"] == 1


async def test_whose_address_is_gone_gets_no_mail(post):
    await post.ask()
    async with post.delivery.registry.unaudited_change() as change:
        await change.emails.set("fay", None)
    async with smtp_server(post.smtp_port) as mailbox, http_listener(post.http_port):
        await post.delivery.deliver_due()
    assert not mailbox.mails
    assert await post.waiting() == 0


async def test_without_a_channel_nothing_is_queued(office):
    await office.requested(Entry("live", RIG))
    assert await office.registry.notices.backlog() == []


async def test_mails_go_over_starttls_with_the_users_password(post, tmp_path):
    file, key = certificates.make().write(tmp_path / "mail")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(file, key)
    changed = settings(
        tmp_path,
        post.smtp_port,
        post.http_port,
        notify_smtp=f"smtp+starttls://{LOOPBACK}:{post.smtp_port}",
        notify_smtp_user="testbed",
        notify_smtp_password=SecretStr("open"),
        notify_ca=file,
    )
    delivery = replace(post.delivery, senders=channels.senders(changed, post.office.clock))
    await post.ask()
    async with (
        smtp_server(post.smtp_port, trust) as mailbox,
        http_listener(post.http_port),
    ):
        await delivery.deliver_due()
    assert mailbox.encrypted == [True]
    assert mailbox.logins[0].startswith("AUTH PLAIN")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"notify_webhook": "ftp://x"}, "TESTBED_NOTIFY_WEBHOOK is no"),
        ({"notify_webhook_secret": SecretStr("short")}, "less than 16 characters"),
        ({"notify_smtp": "mail.example"}, "TESTBED_NOTIFY_SMTP: write the mail server as"),
        ({"notify_smtp_from": "testbed"}, "TESTBED_NOTIFY_SMTP_FROM: 'testbed' is no e-mail"),
        ({"notify_smtp_user": "testbed"}, "would go over the network without TLS"),
    ],
)
def test_a_channel_that_is_set_up_wrongly_is_named(office, tmp_path, changed, word):
    with pytest.raises(Invalid, match=word):
        channels.senders(settings(tmp_path, 25, 80, **changed), office.clock)


def test_the_pauses_between_attempts_grow_and_end():
    pauses = [domain_notices.retry_pause_s(attempts) for attempts in range(1, MOST_ATTEMPTS + 1)]
    assert pauses[:3] == [10, 30, 90]
    assert pauses[-1] is None
    assert pauses[:-1] == sorted(pauses[:-1])
    assert 86_400 < sum(pauses[:-1]) < 2 * 86_400
