"""What a runner remembers of its deployments, on disk."""

import pytest

from broker.clock import NS_PER_S
from broker.deployments.life import DeploymentEnd, DeploymentState, EndCause
from broker.deployments.report import MOST_EVENTS, MOST_REASON
from broker.errors import Corrupt
from testbed_runner.decision import DeploymentHistory, StateChange
from testbed_runner.journal import DeploymentRecord, LinePosition, RunnerJournal
from testbed_runner.log_lines import Redaction

NOW_NS = 1_800_000_000 * NS_PER_S
SECRETS = Redaction({"CLOUD_KEY": "hunter22"})


def after(record, *reasons, end=None):
    history = DeploymentHistory(state=DeploymentState.WAITING, reason=reasons[-1], restarts=2)
    changes = [
        StateChange(state=DeploymentState.WAITING, reason=reason, end=end) for reason in reasons
    ]
    return record.after(history, changes, at_ns=NOW_NS, redaction=SECRETS)


async def test_events_are_numbered_on_and_outlive_the_runner(tmp_path):
    end = DeploymentEnd(
        cause=EndCause.FAILED, phase=DeploymentState.RUNNING, reason="exit code 1", exit_code=1
    )
    journal = RunnerJournal(tmp_path)
    record = after(
        after(DeploymentRecord(deployment=12, last_event=3), "one", "two"), "three", end=end
    )
    await journal.put(record)
    again = RunnerJournal(tmp_path).records
    assert again == {12: record}
    assert [event.number for event in again[12].events] == [4, 5, 6]
    assert again[12].events[-1].end.exit_code == 1


def test_confirmed_events_go_and_the_others_stay():
    record = after(DeploymentRecord(deployment=12), "one", "two", "three").confirmed(2)
    assert [event.reason for event in record.events] == ["three"]
    assert after(record, "four").events[-1].number == 4


def test_no_more_events_are_reported_at_once_than_a_report_holds():
    record = DeploymentRecord(deployment=12)
    for number in range(MOST_EVENTS + 50):
        record = after(record, f"change {number}")
    assert len(record.portion) == MOST_EVENTS
    assert record.confirmed(MOST_EVENTS).portion[0].number == MOST_EVENTS + 1


def test_reasons_hold_no_secret_and_no_novel():
    record = after(DeploymentRecord(deployment=12), "key hunter22 " + "x" * 5_000)
    assert record.events[0].reason.startswith("key [secret CLOUD_KEY] x")
    assert len(record.events[0].reason) == MOST_REASON


async def test_positions_of_logs_outlive_the_runner(tmp_path):
    await RunnerJournal(tmp_path).reached({12: LinePosition(7, NOW_NS, 2)})
    assert RunnerJournal(tmp_path).positions == {12: LinePosition(7, NOW_NS, 2)}


async def test_what_is_forgotten_is_gone(tmp_path):
    journal = RunnerJournal(tmp_path)
    await journal.put(DeploymentRecord(deployment=12))
    await journal.forget(12)
    assert [journal.records, RunnerJournal(tmp_path).records] == [{}, {}]


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "12.json").write_text("{")
    with pytest.raises(Corrupt, match=r"12\.json is no record of a deployment"):
        RunnerJournal(tmp_path)


def test_damaged_positions_count_as_none(tmp_path):
    (tmp_path / "lines.json").write_text('{"12": 7}')
    assert RunnerJournal(tmp_path).positions == {}
