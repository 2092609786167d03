"""The audit: events of acts with caller, target and outcome, in a chain that shows each change.

Each link has the hash over the one before and its own event, so a chain with another past has
another hash at its end; heads that were signed, or handed out, say which hash that was.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import orjson

from broker.audit_head import GENESIS, Head
from broker.clock import ns_of, text_of
from broker.errors import Corrupt, Invalid
from broker.rights import Action

if TYPE_CHECKING:
    from testbed_api.domain.request_keys import RequestKey

MOST_NAME, MOST_TEXT, MOST_DETAILS = 60, 300, 4_000
_LOST = "it was put in, taken out, moved or changed"


class OtherAction(StrEnum):
    """An action that the audit names and the policy does not: nobody has a right to it."""

    CONNECT = "connect"
    DISCONNECT = "disconnect"
    SIGN_IN = "sign-in"
    ENROLMENTS = "enrolments"
    """A gateway claims a one-time code."""
    RUNNERS = "runners"
    """A runner claims a one-time code."""
    END_DEPLOYMENT = "end-deployment"
    """A deployment ended by itself or with a grant, and its credential with it."""
    NOTIFY = "notify"
    CLOCK = "clock"
    """Somebody set the clock of the server's machine."""
    RESTORE = "restore"
    """Added to the chain of a backup by the restore of it."""
    REMOVE_RECORDING = "remove-recording"
    """A recording goes with samples that are deleted, or because it was left half made."""
    REMOVE_IMAGE = "remove-image"
    """An image goes that no deployment has had for long."""
    FIRST_START = "first-start"
    SHOW_ADMINISTRATOR = "show-administrator"
    RENEW_CREDENTIAL = "renew-credential"
    HEALTH = "health"
    DOCS = "docs"
    OPENAPI = "openapi.json"
    ENTRY_POINT = "entry-point"
    """The path of the API itself."""
    UNKNOWN_ROUTE = "unknown-route"
    """A path that is no route of the API."""


ACTIONS = tuple(sorted({*map(str, Action), *map(str, OtherAction)}))
"""Every action that an event can have."""


def checked_action(text: str) -> str:
    """Return `text` if it is an action that an event can have; raises Invalid."""
    if text in ACTIONS:
        return text
    raise Invalid(f"no event has the action {text[:40]!r}", hint=f"one of {', '.join(ACTIONS)}")


class AuditOutcome(StrEnum):
    """The outcome of an act."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    """The policy refused it, or the caller was not authenticated."""
    FAILED = "failed"
    """It was allowed, and could not be done."""


@dataclass(frozen=True, slots=True)
class Event:
    """One act that was done, refused or failed.

    principal: who, or who it says it is where that was refused.  organisation: whose it is.  owner:
    whose thing it was done to.  action: a word of the policy, or such as `sign-in`, `connect`,
    `disconnect`, `restore`.  target: to what.  request: the id that answer and log carry.  source:
    the address it came from.  details: what else is worth knowing, JSON in one spelling.
    """

    time_ns: int
    action: str
    target: str
    outcome: AuditOutcome
    principal: str | None = None
    organisation: str | None = None
    owner: str | None = None
    reason: str = ""
    request: str = ""
    source: str = ""
    details: str = "{}"

    def __post_init__(self) -> None:
        texts = asdict(self)
        del texts["time_ns"]
        for name, text in texts.items():
            most = MOST_DETAILS if name == "details" else MOST_TEXT
            if text is not None and not (text.isprintable() and len(text) <= most):
                raise Invalid(f"{name} of an event cannot be kept: {text[:60]!r}")

    @property
    def canonical(self) -> bytes:
        """The event as JSON with sorted keys, which is what is hashed."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class ChainLink:
    """An event in its place, counting from 1."""

    number: int
    event: Event
    hash: str

    @property
    def plain(self) -> dict[str, Any]:
        """The link as a JSON object."""
        event = asdict(self.event)
        time_ns = event.pop("time_ns")
        return {"number": self.number, "time": text_of(time_ns), **event, "hash": self.hash}

    @classmethod
    def of(cls, raw: Any) -> Self:
        """Read a link from a JSON object; raises Corrupt."""
        try:
            values = dict(raw)
            number, hash_, time_ns = (
                values.pop("number"),
                values.pop("hash"),
                ns_of(values.pop("time")),
            )
            values["outcome"] = AuditOutcome(values["outcome"])
            return cls(number, Event(time_ns, **values), hash_)
        except (KeyError, TypeError, ValueError, Invalid) as exc:
            raise Corrupt(f"an event that lacks sense: {exc}") from exc


def linked(events: Iterable[Event], number: int = 0, hash_: str = GENESIS) -> list[ChainLink]:
    """Events as links that follow the one with this number and hash."""
    links = []
    for event in events:
        number, hash_ = number + 1, _next(hash_, number + 1, event)
        links.append(ChainLink(number, event, hash_))
    return links


def _next(before: str, number: int, event: Event) -> str:
    return hashlib.sha256(b"%s\n%d\n%s" % (before.encode(), number, event.canonical)).hexdigest()


def printable(text: str, most: int = MOST_TEXT) -> str:
    """Escape the unprintable characters of a text, and cut it, so that an event may hold it.

    A line break or an escape sequence of whoever sent it forges no line of a log or a listing.
    """
    plain = "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in text[:most]
    )
    return plain[:most]


def details(facts: Mapping[str, Any]) -> str:
    """Encode facts for an event; facts that are too long are replaced by a note."""
    values = {printable(key, MOST_NAME): _plain(value) for key, value in facts.items()}
    text = _dumped(values)
    if len(text) > MOST_DETAILS:
        short = {k: f"{len(v)} of them" if isinstance(v, list) else v for k, v in values.items()}
        text = _dumped(short)
    return text if len(text) <= MOST_DETAILS else _dumped({"left_out": sorted(values)[:20]})


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int) else printable(str(value))


def _dumped(values: Mapping[str, Any]) -> str:
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


# --- what is being done ---------------------------------------------------------------------------


@dataclass(slots=True)
class AuditEntry:
    """The audit entry of one act while it is collected.

    facts: details of the event.  owner: the organisation that owns the target, where the act itself
    finds it out.  is_written: the entry is in the chain, together with the change.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    owner: str | None = None
    is_written: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditContext:
    """Caller, action and target of one act, and its audit entry.

    principal: known, or claimed by a caller who is not known.  organisation: of a known caller.
    owner: the organisation that owns the target, the caller's if None.  request: the id that answer
    and log carry.  source: the address that the caller came from.  key: makes the act happen once,
    however often its request is sent; None without one.
    """

    action: str = ""
    target: str = ""
    principal: str | None = None
    organisation: str | None = None
    owner: str | None = None
    request: str = ""
    source: str = ""
    key: "RequestKey | None" = None
    entry: AuditEntry = field(default_factory=AuditEntry)

    def by(self, principal: str, organisation: str | None) -> Self:
        """The same act by this caller; organisation: None for a caller who is not known."""
        return replace(self, principal=principal, organisation=organisation)

    def event(
        self,
        time_ns: int,
        outcome: AuditOutcome = AuditOutcome.ALLOWED,
        reason: str = "",
    ) -> Event:
        """The event of this act, with all facts that are collected by now."""
        owner = self.owner if self.entry.owner is None else self.entry.owner
        return Event(
            time_ns,
            printable(self.action, MOST_NAME),
            printable(self.target),
            outcome,
            None if self.principal is None else printable(self.principal, MOST_NAME),
            self.organisation,
            self.organisation if owner is None else printable(owner, MOST_NAME),
            printable(reason),
            self.request,
            printable(self.source, MOST_NAME),
            details(self.entry.facts),
        )


# --- whether it is whole --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChainFault:
    """The first place at which a chain is not whole, in a sentence."""

    number: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """Another key signs the heads from an event on, as after a restore without the former key.

    number: of the event `restore` since when it does.  backup: SHA-256 of the backup's manifest.
    taken: time of the backup, as text.  sure: number of events that the former key's heads cover.
    before, after: the public keys, in hex.
    """

    number: int
    backup: str
    taken: str
    sure: int
    before: str
    after: str

    @property
    def sentence(self) -> str:
        """The change in a sentence."""
        of = f"of backup {self.backup}" + (f", taken {self.taken}" if self.taken else "")
        return (
            f"the signing key changed at the restore of event {self.number} ({of}): {self.before}"
            f" signed the heads up to event {self.sure}, {self.after} signs from event"
            f" {self.number} on"
        )


@dataclass(slots=True, kw_only=True)
class ChainRestore:
    """A restore that the chain tells of, after which it goes on from a backup.

    number: of its event.  backup: SHA-256 of the manifest.  taken: time of the backup, as text.
    lost_upto: number of the last event after that backup which a signed head knows, and which is
    not in the chain any more; 0 if no head knows one.
    """

    number: int
    time_ns: int
    backup: str
    taken: str
    lost_upto: int = 0

    @classmethod
    def of(cls, link: ChainLink) -> Self:
        """Read from the event of a restore."""
        return cls(
            number=link.number,
            time_ns=link.event.time_ns,
            backup=link.event.target.removeprefix("backup "),
            taken=_taken(link.event),
        )

    def explains(self, head: Head) -> bool:
        """Whether a head was signed between the backup and its restore, of events that are gone."""
        try:
            taken_ns = ns_of(self.taken)
        except Invalid:
            return False
        return head.count >= self.number and taken_ns < head.time_ns <= self.time_ns

    @property
    def sentence(self) -> str:
        """The restore in a sentence."""
        restored = f"event {self.number} is the restore of backup {self.backup}"
        restored += f", taken {self.taken}" if self.taken else ""
        if not self.lost_upto:
            return restored
        return (
            f"{restored}: events after that backup, up to event {self.lost_upto} of the former"
            " chain, are gone with it, as a signed head shows"
        )

    @property
    def doubt(self) -> ChainFault:
        """The fault that asks whether the restore was right."""
        return ChainFault(
            self.number,
            f"{self.sentence}. If that restore was right, say so with --restore {self.backup}; if"
            " nobody restored then, the chain was cut",
        )


class Verifier:
    """Verifies a chain against signed heads, in one pass over its links."""

    def __init__(
        self,
        heads: Iterable[Head],
        keys: Collection[str],
        *,
        names_restores: bool = False,
        restores: Collection[str] = (),
    ) -> None:
        """heads: the testbed's own, and anchors.  keys: public keys whose signatures count.

        names_restores: accept heads of another key before a restore that the chain tells of; the
        newest head needs one of `keys` all the same.  restores: backups whose restores were right,
        by SHA-256: heads of the events that are gone with them are no fault.
        """
        self.key_changes: list[KeyChange] = []
        """Changes of the key at restores, in their order."""
        self.restores: list[ChainRestore] = []
        """The restores that the chain tells of, in their order."""
        self._right_restores = frozenset(restores)
        self._heads = sorted(heads, key=lambda head: (head.count, head.time_ns))
        self._keys = frozenset(keys)
        self._names_restores = names_restores
        self._at = 0
        self._number, self._hash = 0, GENESIS
        self._sure = 0
        """Up to here a head agrees."""
        self._key = ""
        """Of the last head that was accepted."""

    @property
    def count(self) -> int:
        """Number of links so far."""
        return self._number

    def take(self, link: ChainLink) -> ChainFault | None:
        """Verify the next link; returns the first fault of the chain up to it, None without one."""
        if broken := self._held():
            return broken
        if link.number != self._number + 1:
            return ChainFault(
                self._number + 1,
                f"event {self._number + 1} is not there: event {link.number} stands in its place",
            )
        if link.hash != _next(self._hash, link.number, link.event):
            return ChainFault(
                link.number, f"event {link.number} does not follow from those before: {_LOST}"
            )
        self._number, self._hash = link.number, link.hash
        if _is_restore(link.event):
            self.restores.append(ChainRestore.of(link))
        return None

    def end(self) -> ChainFault | None:
        """Verify the end of the chain; returns the first fault of it all, None without one."""
        if broken := self._held():
            return broken
        while self._at < len(self._heads):
            head = self._heads[self._at]
            if wrong := self._wrong(head):
                return wrong
            restore = self._restore_of(head)
            if restore is None:
                return ChainFault(
                    self._number + 1,
                    f"the chain was cut behind event {self._number}: a signed head counts"
                    f" {self._heads[-1].count} events",
                )
            if restore.backup not in self._right_restores:
                return restore.doubt
            self._at += 1
        if self._key and self._key not in self._keys:
            change = self._change(next(iter(self._keys), "")) if self._names_restores else None
            if change is None:
                return _strange(self._sure, self._key)
            self.key_changes.append(change)  # the new key has signed nothing as yet
        return None

    def _held(self) -> ChainFault | None:
        """Compare the chain so far with the heads that cover it."""
        while self._at < len(self._heads) and self._heads[self._at].count <= self._number:
            head = self._heads[self._at]
            if wrong := self._wrong(head):
                return wrong
            if head.hash != self._hash:
                restore = self._restore_of(head)
                if restore is None:
                    return ChainFault(
                        self._sure + 1,
                        f"events {self._sure + 1} to {head.count} were written anew: a signed head"
                        f" has another hash of event {head.count}",
                    )
                if restore.backup not in self._right_restores:
                    return restore.doubt
                self._at += 1
                continue
            self._sure = head.count
            self._key = head.key
            self._at += 1
        return None

    def _wrong(self, head: Head) -> ChainFault | None:
        if fault := self._key_fault(head):
            return fault
        if not head.is_signed:
            return ChainFault(head.count, f"the head of {head.count} events has a forged signature")
        return None

    def _key_fault(self, head: Head) -> ChainFault | None:
        """Check the key of the next head, and note where it changed at a restore."""
        if head.key == self._key:
            return None
        is_trusted = head.key in self._keys
        change = self._change(head.key)
        if change is None:
            if not is_trusted and (self._key or not self._names_restores):
                return _strange(head.count, head.key)
            if self._key and self._key not in self._keys:
                return _strange(self._sure, self._key)
            return None
        if is_trusted or self._names_restores:
            self.key_changes.append(change)
            return None
        return ChainFault(
            change.number,
            f"{change.sentence}. {change.after} is not among the keys that you trust: if that"
            f" restore was right, name both with --key {change.before} --key {change.after}",
        )

    def _change(self, key: str) -> KeyChange | None:
        """The change to this key at a restore since the last head, None without a restore."""
        restore = self.restores[-1] if self.restores else None
        if not self._key or restore is None or restore.number <= self._sure:
            return None
        return KeyChange(
            number=restore.number,
            backup=restore.backup,
            taken=restore.taken,
            sure=self._sure,
            before=self._key,
            after=key,
        )

    def _restore_of(self, head: Head) -> ChainRestore | None:
        """The restore that explains why a head does not match, None if none does."""
        for restore in self.restores:
            if restore.explains(head):
                restore.lost_upto = max(
                    each.count for each in self._heads if restore.explains(each)
                )
                return restore
        return None


def _strange(count: int, key: str) -> ChainFault:
    return ChainFault(count, f"the head of {count} events is signed by a strange key, {key[:64]}")


def _is_restore(event: Event) -> bool:
    """Whether a restore wrote it: a request to a path of that name has an id, and is refused."""
    return (
        event.action == OtherAction.RESTORE
        and event.outcome is AuditOutcome.ALLOWED
        and not event.request
    )


def _taken(event: Event) -> str:
    """The time of the backup in an event of its restore; empty if it says none."""
    try:
        return str(orjson.loads(event.details).get("taken", ""))
    except (orjson.JSONDecodeError, AttributeError):
        return ""


def verify(
    links: Iterable[ChainLink], heads: Sequence[Head], keys: Collection[str]
) -> ChainFault | None:
    """The first place at which the chain is not whole, None if it is."""
    verifier = Verifier(heads, keys)
    for link in links:
        if broken := verifier.take(link):
            return broken
    return verifier.end()
