"""Anchors that a gateway stores: each durably, old ones thinned, the newest never lost."""

from broker import audit_head
from broker.audit_head import HeadSigner
from broker.clock import NS_PER_S
from gateway.uplink import audit_anchors
from gateway.uplink.audit_anchors import DAY_NS, MOST, RECENT, AnchorFile

SIGNER = HeadSigner.from_seed("07" * 32)
MINUTE_NS = 60 * NS_PER_S


def head(minute, count=None, signer=SIGNER):
    return signer.sign(minute if count is None else count, "a" * 64, minute * MINUTE_NS)


def lines(path):
    return [audit_head.decode(line) for line in path.read_bytes().splitlines()]


def test_each_is_kept_once_and_still_there_after_a_restart(tmp_path):
    path = tmp_path / "anchors.jsonl"
    anchors = AnchorFile(path)
    for minute in (1, 2, 2, 3):
        anchors.add(head(minute))
    assert lines(path) == [head(1), head(2), head(3)]
    again = AnchorFile(path)
    assert again.newest == head(3)
    again.add(head(3))
    again.add(head(4))
    assert lines(path)[-2:] == [head(3), head(4)]


def test_a_line_that_a_crash_cut_off_is_passed_over(tmp_path):
    path = tmp_path / "anchors.jsonl"
    AnchorFile(path).add(head(1))
    with path.open("ab") as opened:
        opened.write(audit_head.encode(head(2))[:20] + b"\n")
    assert AnchorFile(path).newest == head(1)


def test_old_ones_are_thinned_to_one_a_day(tmp_path):
    path = tmp_path / "anchors.jsonl"
    every = [head(minute) for minute in range(0, (MOST + 1) * 5, 5)]
    path.write_bytes(b"".join(audit_head.encode(anchor) + b"\n" for anchor in every[:-1]))
    anchors = AnchorFile(path)
    anchors.add(every[-1])
    stored = lines(path)
    assert stored[-RECENT:] == every[-RECENT:]
    days = [anchor.time_ns // DAY_NS for anchor in stored[:-RECENT]]
    assert days == sorted({anchor.time_ns // DAY_NS for anchor in every[:-RECENT]})
    assert audit_anchors.thinned(stored) == stored


def test_a_chain_that_became_shorter_is_stored_and_logged(tmp_path, capsys):
    anchors = AnchorFile(tmp_path / "anchors.jsonl")
    anchors.add(head(1, count=100))
    anchors.add(head(2, count=99))
    anchors.add(head(3, signer=HeadSigner.from_seed("08" * 32)))
    output = capsys.readouterr().out
    assert "audit became shorter" in output
    assert "audit has another key" in output
    assert len(lines(tmp_path / "anchors.jsonl")) == 3
