"""Sends notices as mails through an SMTP server."""

import asyncio
import smtplib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from urllib.parse import urlsplit

from broker.clock import NS_PER_S
from broker.errors import Unavailable
from testbed_api.domain.notices import QueuedNotice

TIMEOUT_S = 20.0
PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """The address of an SMTP server; its scheme is a key of PORTS and says how TLS is used."""

    host: str
    port: int
    scheme: str


def server_of(text: str) -> SmtpServer:
    """Parse `smtp+starttls://host:port`, `smtps://…` or `smtp://…`; raises ValueError."""
    parts = urlsplit(text)
    scheme = parts.scheme
    if scheme not in PORTS or not parts.hostname or "@" in parts.netloc or parts.path.strip("/"):
        raise ValueError(
            "write the mail server as smtp+starttls://host:587, smtps://host:465, or smtp://host:25"
            " without TLS, and its user apart"
        )
    port = PORTS[scheme] if parts.port is None else parts.port
    return SmtpServer(host=parts.hostname, port=port, scheme=scheme)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpSender:
    """Sends each notice in a connection of its own, in a thread.

    user: empty for a server that asks for none.
    """

    server: SmtpServer
    sender: str
    trust: ssl.SSLContext
    user: str = ""
    password: str = ""

    async def send(self, notice: QueuedNotice, address: str) -> None:
        """Send a mail; raises Unavailable unless the server takes it."""
        message = mail_of(notice, self.sender, address)
        try:
            await asyncio.to_thread(self._send, message)
        except (OSError, smtplib.SMTPException) as exc:
            raise Unavailable(f"the mail server did not take a mail: {_reason(exc)}") from exc

    def _send(self, message: EmailMessage) -> None:
        with self._connected() as smtp:
            if self.server.scheme == "smtp+starttls":
                smtp.starttls(context=self.trust)
            if self.user:
                smtp.login(self.user, self.password)
            smtp.send_message(message)

    def _connected(self) -> smtplib.SMTP:
        host, port = self.server.host, self.server.port
        if self.server.scheme == "smtps":
            return smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_S, context=self.trust)
        return smtplib.SMTP(host, port, timeout=TIMEOUT_S)


def mail_of(notice: QueuedNotice, sender: str, address: str) -> EmailMessage:
    """The mail of a notice: plain text, to one person, marked as sent by a program."""
    message = EmailMessage()
    message["From"], message["To"] = sender, address
    message["Subject"] = f"[testbed] {notice.content['subject']}"
    sent = datetime.fromtimestamp(notice.queued_ns / NS_PER_S, UTC)
    message["Date"] = format_datetime(sent)
    message["Message-ID"] = f"<notice-{notice.id}.{notice.queued_ns}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{notice.content['text']}\n")
    return message


def _reason(exc: Exception) -> str:
    if isinstance(exc, smtplib.SMTPResponseException):
        return f"it answered {exc.smtp_code}"
    return type(exc).__name__ if not isinstance(exc, OSError) else str(exc.strerror or exc)
