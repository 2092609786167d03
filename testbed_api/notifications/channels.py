"""The channels that the settings set up, each with its sender."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from broker import tls
from broker.clock import Clock
from broker.errors import Invalid
from testbed_api.domain.notices import Channel, checked_email
from testbed_api.notifications import smtp
from testbed_api.notifications.port import NoticeSender
from testbed_api.notifications.smtp import SmtpSender
from testbed_api.notifications.webhook import WebhookSender
from testbed_api.settings import ServerSettings

LEAST_SECRET = 16


def senders(settings: ServerSettings, clock: Clock) -> Mapping[Channel, NoticeSender]:
    """A sender for each channel that is set up; raises Invalid with the setting that is wrong."""
    built: dict[Channel, NoticeSender] = {}
    if settings.notify_webhook:
        built[Channel.WEBHOOK] = _webhook(settings, clock)
    if settings.notify_smtp:
        built[Channel.MAIL] = _mail(settings)
    return built


def _webhook(settings: ServerSettings, clock: Clock) -> WebhookSender:
    parts = urlsplit(settings.notify_webhook)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Invalid("TESTBED_NOTIFY_WEBHOOK is no http:// or https:// URL")
    secret = settings.notify_webhook_secret.get_secret_value().encode()
    if len(secret) < LEAST_SECRET:
        raise Invalid(
            f"TESTBED_NOTIFY_WEBHOOK_SECRET has less than {LEAST_SECRET} characters",
            hint="name a file with a random one in TESTBED_NOTIFY_WEBHOOK_SECRET_FILE",
        )
    trust = tls.client_context(settings.notify_ca, setting="TESTBED_NOTIFY_CA")
    return WebhookSender(settings.notify_webhook, secret, trust, clock)


def _mail(settings: ServerSettings) -> SmtpSender:
    try:
        server = smtp.server_of(settings.notify_smtp)
    except ValueError as exc:
        raise Invalid(f"TESTBED_NOTIFY_SMTP: {exc}") from exc
    if server.scheme == "smtp" and settings.notify_smtp_user:
        raise Invalid(
            "the password of TESTBED_NOTIFY_SMTP_USER would go over the network without TLS",
            hint="write smtp+starttls:// or smtps:// into TESTBED_NOTIFY_SMTP",
        )
    try:
        sender = checked_email(settings.notify_smtp_from)
    except Invalid as exc:
        raise Invalid(f"TESTBED_NOTIFY_SMTP_FROM: {exc.message}", hint=exc.hint) from exc
    return SmtpSender(
        server=server,
        sender=sender,
        trust=tls.client_context(settings.notify_ca, setting="TESTBED_NOTIFY_CA"),
        user=settings.notify_smtp_user,
        password=settings.notify_smtp_password.get_secret_value(),
    )
