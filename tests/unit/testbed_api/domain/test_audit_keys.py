"""A key that changes at a restore, and events that go with it, are named; others are a fault."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from broker.audit_head import Head, HeadSigner
from broker.clock import HOUR_S, NS_PER_S, ns_of
from testbed_api.domain import audit
from testbed_api.domain.audit import (
    AuditOutcome,
    ChainFault,
    ChainLink,
    Event,
    OtherAction,
    Verifier,
)

FORMER, NEW, OTHER = (HeadSigner.from_seed(f"0{number}" * 32) for number in (7, 8, 9))
RESTORE = Event(
    5,
    OtherAction.RESTORE,
    "backup 9f86",
    AuditOutcome.ALLOWED,
    details=audit.details({"taken": "2026-11-23T12:00:00Z"}),
)
TAKEN_NS = ns_of("2026-11-23T12:00:00Z")
HOUR_NS = HOUR_S * NS_PER_S


def event(at: int, action: str = "share", request: str = "id") -> Event:
    return Event(at, action, "POST /grants", AuditOutcome.ALLOWED, request=request)


def chain(*restores: int, count: int = 9) -> list[ChainLink]:
    """A chain whose events of these numbers are restores."""
    events = [RESTORE if at in restores else event(at) for at in range(1, count + 1)]
    return audit.linked(events)


def head(signer: HeadSigner, links: Sequence[ChainLink], count: int) -> Head:
    return signer.sign(count, links[count - 1].hash, count)


def judged(
    links: Sequence[ChainLink],
    heads: Sequence[Head],
    keys: Sequence[HeadSigner],
    *,
    names_restores: bool = True,
) -> tuple[ChainFault | None, Verifier]:
    verifier = Verifier(heads, [key.key for key in keys], names_restores=names_restores)
    for link in links:
        if fault := verifier.take(link):
            return fault, verifier
    return verifier.end(), verifier


def test_a_key_that_changed_at_a_restore_is_named_with_its_restore() -> None:
    links = chain(6)
    heads = [head(FORMER, links, count) for count in (2, 5)]
    heads += [head(NEW, links, count) for count in (6, 9)]
    fault, verifier = judged(links, heads, [NEW])
    assert fault is None
    (change,) = verifier.key_changes
    assert (change.number, change.backup, change.sure) == (6, "9f86", 5)
    assert (change.before, change.after) == (FORMER.key, NEW.key)
    assert change.taken == "2026-11-23T12:00:00Z"
    assert "restore of event 6 (of backup 9f86, taken 2026-11-23T12:00:00Z)" in change.sentence
    assert "signs from event 6 on" in change.sentence


def test_a_server_that_has_signed_nothing_since_its_restore_is_whole() -> None:
    links = chain(6, count=6)
    fault, verifier = judged(links, [head(FORMER, links, 5)], [NEW])
    assert fault is None
    assert [change.after for change in verifier.key_changes] == [NEW.key]


def test_two_restores_with_two_keys_are_two_changes() -> None:
    links = chain(3, 6)
    heads = [head(OTHER, links, 2), head(FORMER, links, 4), head(NEW, links, 7)]
    fault, verifier = judged(links, heads, [NEW])
    assert fault is None
    assert [change.number for change in verifier.key_changes] == [3, 6]


def test_a_restore_that_keeps_the_key_is_no_change() -> None:
    links = chain(6)
    fault, verifier = judged(links, [head(NEW, links, 5), head(NEW, links, 9)], [NEW])
    assert (fault, verifier.key_changes) == (None, [])


def test_a_key_that_changed_without_a_restore_is_a_fault() -> None:
    links = chain()
    fault, _ = judged(links, [head(FORMER, links, 5), head(NEW, links, 9)], [NEW])
    assert fault is not None
    assert "strange key" in fault.sentence


def test_a_restore_before_the_last_head_of_a_key_explains_no_change_after_it() -> None:
    links = chain(3)
    fault, _ = judged(links, [head(FORMER, links, 5), head(NEW, links, 9)], [NEW])
    assert fault is not None


def test_the_newest_head_needs_the_servers_key() -> None:
    links = chain(6)
    fault, _ = judged(links, [head(NEW, links, 5), head(OTHER, links, 9)], [NEW])
    assert fault is not None
    assert OTHER.key in fault.sentence


def test_a_request_to_a_path_named_restore_is_no_restore() -> None:
    events = [event(at, OtherAction.RESTORE if at == 6 else "share") for at in range(1, 10)]
    links = audit.linked(events)
    fault, _ = judged(links, [head(FORMER, links, 5), head(NEW, links, 9)], [NEW])
    assert fault is not None


def test_whoever_names_the_keys_decides_about_a_new_one() -> None:
    links = chain(6)
    heads = [head(FORMER, links, 5), head(NEW, links, 9)]
    fault, _ = judged(links, heads, [FORMER], names_restores=False)
    assert fault is not None
    assert fault.number == 6
    assert "at the restore of event 6" in fault.sentence
    assert f"--key {FORMER.key} --key {NEW.key}" in fault.sentence
    fault, verifier = judged(links, heads, [FORMER, NEW], names_restores=False)
    assert fault is None
    assert len(verifier.key_changes) == 1


def test_tampering_is_a_fault_with_a_restore_as_without() -> None:
    links = chain(6)
    heads = [head(FORMER, links, 5), head(NEW, links, 9)]
    for number in range(len(links)):
        changed = list(links)
        changed[number] = ChainLink(number + 1, event(99), links[number].hash)
        fault, _ = judged(changed, heads, [NEW])
        assert fault is not None
        assert f"event {number + 1} does not follow" in fault.sentence


def restored(links: Sequence[ChainLink], *anchors: Head, right: str = "") -> tuple[str, int]:
    """The fault of a chain with anchors, and how far the events that are gone with it reach."""
    heads = [head(FORMER, links, 5), *anchors]
    verifier = Verifier(heads, [FORMER.key], restores={right} - {""})
    fault = None
    for link in links:
        fault = fault or verifier.take(link)
    fault = fault or verifier.end()
    upto = max((restore.lost_upto for restore in verifier.restores), default=0)
    return "" if fault is None else fault.sentence, upto


def chain_restored() -> list[ChainLink]:
    """A chain of nine events whose sixth is a restore, an hour after its backup."""
    restore = replace(RESTORE, time_ns=TAKEN_NS + HOUR_NS)
    return audit.linked([restore if at == 6 else event(at) for at in range(1, 10)])


def anchored(count: int, time_ns: int) -> Head:
    """A head of events that are not in the chain any more."""
    return FORMER.sign(count, "ab" * 32, time_ns)


def test_an_anchor_of_events_that_a_restore_lost_asks_whether_it_was_right() -> None:
    anchors = [anchored(count, TAKEN_NS + 1) for count in (8, 20)]
    sentence, upto = restored(chain_restored(), *anchors)
    assert "event 6 is the restore of backup 9f86, taken 2026-11-23T12:00:00Z" in sentence
    assert "events after that backup, up to event 20 of the former chain, are gone" in sentence
    assert "say so with --restore 9f86; if nobody restored then, the chain was cut" in sentence
    assert upto == 20
    assert restored(chain_restored(), *anchors, right="9f86") == ("", 20)
    assert restored(chain_restored(), *anchors, right="another")[0] == sentence


@pytest.mark.parametrize(
    ("count", "time_ns"),
    [(8, TAKEN_NS - 1), (20, TAKEN_NS), (8, TAKEN_NS + HOUR_NS + 1), (4, TAKEN_NS + 1)],
    ids=["before the backup", "far before it", "after the restore", "of what the backup holds"],
)
def test_a_restore_explains_no_other_anchor(count: int, time_ns: int) -> None:
    sentence, upto = restored(chain_restored(), anchored(count, time_ns), right="9f86")
    assert "were written anew" in sentence or "was cut" in sentence
    assert "--restore" not in sentence
    assert upto == 0
