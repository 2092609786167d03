"""Every end of a deployment, whatever it did and however it ended, comes with what to do."""

import itertools

import pytest

from broker.deployments import advice
from broker.deployments.life import DeploymentEnd, DeploymentState, EndCause

ENDINGS = [(None, None), (1, None), (2, None), (126, None), (127, None), (None, 9), (None, 11)]


@pytest.mark.parametrize("cause", EndCause)
def test_every_end_says_what_to_do(cause):
    for phase, (code, signal) in itertools.product(DeploymentState, ENDINGS):
        end = DeploymentEnd(cause=cause, phase=phase, reason="-", exit_code=code, signal=signal)
        sentences = advice.of_end(end, 12)
        assert 1 <= len(sentences) <= 3
        assert all(sentence and len(sentence) < 200 for sentence in sentences)
        assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize(
    ("cause", "more", "words"),
    [
        (EndCause.MEMORY, {}, "resources.memory"),
        (EndCause.PIDS, {}, "resources.pids"),
        (EndCause.DISK, {}, "resources.disk"),
        (EndCause.TIME, {"phase": DeploymentState.CONNECTING}, "health.starts_within"),
        (EndCause.TIME, {"phase": DeploymentState.RUNNING}, "health.silent_for"),
        (EndCause.FAILED, {"exit_code": 127}, "not in its image"),
        (EndCause.FAILED, {"exit_code": 126}, "chmod +x"),
        (EndCause.FAILED, {"signal": 11}, "native code"),
        (EndCause.FAILED, {"phase": DeploymentState.CONNECTING, "exit_code": 1}, "missing module"),
        (EndCause.IMAGE, {}, "architecture"),
        (EndCause.START, {}, "`command`"),
        (EndCause.GRANT, {}, "testbed prototype request"),
        (EndCause.REPLACED, {}, "testbed deployment rollback"),
    ],
)
def test_the_advice_is_about_what_was_hit(cause, more, words):
    end = DeploymentEnd(**{"cause": cause, "phase": DeploymentState.RUNNING, "reason": "-"} | more)
    assert words in " ".join(advice.of_end(end, 12))


def test_what_goes_on_as_it_should_needs_no_advice():
    for state in DeploymentState:
        needs = state in {DeploymentState.CONNECTING, DeploymentState.FROZEN}
        assert bool(advice.of_state(state, 12)) is needs
    assert "room" in advice.of_state(DeploymentState.WAITING, 12, place=1)[0]
