"""Watches the certificates of the listeners: alarms before they end, and takes up renewed ones."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from broker import certificate_expiry, tls
from broker.clock import Clock
from broker.errors import Invalid, Unavailable
from broker.tls import Certificate
from testbed_api.security import certificates
from testbed_api.security.certificates import ServerCertificates

LOOK_S = 10.0
"""The files are looked at so often; a renewed certificate is taken up at the second look at it, so
that certificate and key are both there.
"""
_RENEW = "put a new one there, which is taken up within half a minute, without a restart"

_FileStates = tuple[tuple[int, int, int] | None, ...]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedCertificate:
    """A certificate that a listener shows, or the one of the testbed's own authority.

    label: of it in metrics.  subject: in sentences.  files: the certificate's first, then its
    key's.  take_up: makes the listener show what the files hold now, None for no listener; raises
    Invalid or Unavailable.
    """

    label: str
    subject: str
    files: tuple[Path, ...]
    take_up: Callable[[], Awaitable[None]] | None = None
    remedy: str = _RENEW


@dataclass(slots=True)
class _InUse:
    """The certificate that is in use.

    until_ns: its end.  loaded: the state of the files that it was read from; seen: at the last
    look.  problem: why the files of now are not taken up, empty without one.
    """

    until_ns: int
    loaded: _FileStates
    seen: _FileStates
    problem: str = ""


class CertificateWatch:
    """The ends of certificates, and the alarms about them."""

    def __init__(self, watched: Sequence[WatchedCertificate] = ()) -> None:
        """watched: as they are in use; raises Invalid if one cannot be read."""
        self._in_use = {each: _in_use(each) for each in watched}
        self._logged: frozenset[str] = frozenset()

    async def run(self, clock: Clock) -> None:
        """Look at the files until cancelled."""
        while True:
            await self.look(clock.now_ns())
            await clock.sleep(LOOK_S)

    async def look(self, now_ns: int) -> None:
        """Take up what was renewed since the last look, and log alarms that are new or over."""
        for watched, in_use in self._in_use.items():
            state = await asyncio.to_thread(_state_of, watched.files)
            if state == in_use.seen != in_use.loaded:
                await self._take_up(watched, in_use, now_ns)
            in_use.seen = state
        alarms = frozenset(self.alarms(now_ns))
        for sentence in sorted(alarms - self._logged):
            log.warning("alarm was raised", subject="certificates", reason=sentence)
        for sentence in sorted(self._logged - alarms):
            log.warning("alarm was cleared", subject="certificates", reason=sentence)
        self._logged = alarms

    def left_ns(self, now_ns: int) -> Mapping[str, int]:
        """Time until the end of each certificate, by its label; negative after its end."""
        return {each.label: in_use.until_ns - now_ns for each, in_use in self._in_use.items()}

    def alarms(self, now_ns: int) -> list[str]:
        """The sentences about certificates that end soon, have ended or are not taken up."""
        sentences: list[str] = []
        for watched, in_use in self._in_use.items():
            subject = f"{watched.subject}, {watched.files[0]},"
            until_ns, remedy = in_use.until_ns, watched.remedy
            sentence = certificate_expiry.alarm(subject, until_ns, now_ns, remedy=remedy)
            sentences += filter(None, (sentence, in_use.problem))
        return sentences

    async def _take_up(self, watched: WatchedCertificate, in_use: _InUse, now_ns: int) -> None:
        file = watched.files[0]
        try:
            until_ns = await asyncio.to_thread(certificates.end_ns, file)
            if until_ns <= now_ns:
                raise Invalid("it has ended already")
            if watched.take_up is not None:
                await watched.take_up()
        except (Invalid, Unavailable) as exc:
            in_use.problem = f"the renewed {file} is not taken up: {exc}"
        else:
            in_use.until_ns, in_use.loaded, in_use.problem = until_ns, in_use.seen, ""
            log.info("certificate was taken up", file=str(file), label=watched.label)


def _in_use(watched: WatchedCertificate) -> _InUse:
    state = _state_of(watched.files)
    return _InUse(certificates.end_ns(watched.files[0]), loaded=state, seen=state)


def _state_of(files: Sequence[Path]) -> _FileStates:
    """Inode, time and size of each file, which its successor does not share; None if missing."""
    return tuple(map(_file_state, files))


def _file_state(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def of_listeners(
    listeners: ServerCertificates,
    api: ssl.SSLContext | None,
    broker: Callable[[], Awaitable[None]] | None = None,
) -> CertificateWatch:
    """The watch over the certificates of a server's own listeners, and of its authority.

    api: the context of the API's listener, None without TLS.  broker: takes up the broker's
    certificate, None if that is not ours to start.
    """
    watched: list[WatchedCertificate] = []
    if listeners.api is not None and api is not None:
        take_up = partial(asyncio.to_thread, tls.renew, api, listeners.api)
        subject = "the certificate of the API"
        watched.append(_listener("api", subject, listeners.api, take_up))
    if listeners.broker is not None and broker is not None:
        subject = "the certificate of the broker"
        watched.append(_listener("broker", subject, listeners.broker, broker))
    if listeners.ca is not None:
        watched.append(
            WatchedCertificate(
                label="authority",
                subject="the certificate of the testbed's own authority",
                files=(listeners.ca,),
                remedy="then no client trusts the listeners: make a new one with `testbed pki init`"
                " in an empty folder, and hand out its ca.pem",
            )
        )
    return CertificateWatch(watched)


def _listener(
    label: str, subject: str, certificate: Certificate, take_up: Callable[[], Awaitable[None]]
) -> WatchedCertificate:
    files = (certificate.chain, certificate.key)
    return WatchedCertificate(label=label, subject=subject, files=files, take_up=take_up)
