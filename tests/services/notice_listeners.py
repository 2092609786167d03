"""An SMTP server and an HTTP listener on loopback that take what is sent to them, or refuse it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

from tests.services import LOOPBACK


@dataclass
class Mailbox:
    """What an SMTP server took.  refuses: the code with which it answers each mail, 0 for none."""

    mails: list[EmailMessage] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    refuses: int = 0


@dataclass
class Posts:
    """What an HTTP listener took: headers in small letters, and the body.  status: its answers."""

    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    status: int = 204


@asynccontextmanager
async def smtp_server(port: int, trust: ssl.SSLContext | None = None) -> AsyncIterator[Mailbox]:
    """An SMTP server (RFC 5321); trust: the context with which it offers STARTTLS."""
    mailbox = Mailbox()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _Session(mailbox, trust, reader, writer).run()

    async with _listening(talk, port):
        yield mailbox


@dataclass
class _Session:
    mailbox: Mailbox
    trust: ssl.SSLContext | None
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_encrypted: bool = False

    async def run(self) -> None:
        self._say("220 test ESMTP")
        while line := (await self.reader.readline()).decode().strip():
            verb = line.partition(" ")[0].upper()
            if verb == "QUIT":
                self._say("221 bye")
                return
            await self._answer(verb, line)

    async def _answer(self, verb: str, line: str) -> None:
        if verb == "EHLO":
            offers = [] if self.trust is None or self.is_encrypted else ["STARTTLS"]
            lines = ["test", "AUTH PLAIN", *offers]
            for text in lines[:-1]:
                self._say(f"250-{text}")
            self._say(f"250 {lines[-1]}")
        elif verb == "STARTTLS" and self.trust is not None:
            self._say("220 go ahead")
            await self.writer.drain()
            await self.writer.start_tls(self.trust)
            self.is_encrypted = True
        elif verb == "AUTH":
            self.mailbox.logins.append(line)
            self._say("235 welcome")
        elif verb == "DATA":
            await self._take()
        else:
            self._say("250 fine")

    async def _take(self) -> None:
        self._say("354 send it")
        raw = await self.reader.readuntil(b"\r\n.\r\n")
        if self.mailbox.refuses:
            self._say(f"{self.mailbox.refuses} not now")
            return
        mail = message_from_bytes(raw[:-3], policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mailbox.mails.append(mail)
        self.mailbox.encrypted.append(self.is_encrypted)
        self._say("250 taken")

    def _say(self, text: str) -> None:
        self.writer.write(f"{text}\r\n".encode())


@asynccontextmanager
async def http_listener(port: int) -> AsyncIterator[Posts]:
    """An HTTP/1.1 listener that answers each POST with the status of its `Posts`."""
    posts = Posts()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        posts.taken.append((headers, body))
        answer = f"HTTP/1.1 {posts.status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        writer.write(answer.encode())

    async with _listening(talk, port):
        yield posts


@asynccontextmanager
async def _listening(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], port: int
) -> AsyncIterator[None]:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await talk(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async with await asyncio.start_server(served, LOOPBACK, port):
        yield
