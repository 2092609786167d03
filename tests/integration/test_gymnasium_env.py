"""A scenario as an environment of Gymnasium."""

import subprocess
import sys

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from broker.errors import Invalid, Unknown
from testbed.scenario.gymnasium_env import ScenarioEnv
from tests import sources
from tests.docs import blocks

HEATER = sources.ROOT / "examples" / "scenarios" / "heater-control.yaml"
PAGE = sources.ROOT / "docs" / "how-to" / "recipes" / "closed-loop.md"
SHORT = """scenario: short
duration: 5s
equipment:
  rig: {model: pump-rig}
timeline:
  - {fault: noise, on: rig/Pressure, from: 1s, to: 4s, by: 500}
expectations:
  - {name: pressure, signal: rig/Pressure, always: {above: -10000}}
  - {name: rows, stream: rig, count: {at_least: 5}}
"""


@pytest.fixture
def short(tmp_path):
    (tmp_path / "short.yaml").write_text(SHORT)
    return tmp_path / "short.yaml"


def episode(env, seed, actions=5):
    rows = [env.reset(seed=seed)[0]]
    env.action_space.seed(seed)
    for _ in range(actions):
        observation, reward, terminated, truncated, about = env.step(env.action_space.sample())
        rows.append(np.append(observation, reward))
    return rows, (terminated, truncated, about)


# actions are in the unit of the input; gymnasium.wrappers.RescaleAction makes them -1 to 1
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space:UserWarning")
def test_gymnasiums_own_checks_pass(short):
    env = ScenarioEnv(short, reward="rig/Current", observations=["rig/Current", "rig/Temperature"])
    check_env(env, skip_render_check=True)
    env.close()


def test_the_same_seed_is_the_same_episode_and_another_one_is_not(short):
    env = ScenarioEnv(short, reward="rig/Volume Flow RateRMS")
    (first, end), (again, _), (other, _) = (episode(env, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert end == (False, True, {"time_s": 5.0, "seed": 3, "passed": True})
    with pytest.raises(Invalid, match="the episode is over"):
        env.step(env.action_space.sample())


def test_an_action_acts_on_the_machine():
    env = ScenarioEnv(
        HEATER,
        reward=lambda values: -values["press/Heater Power"],
        actions=["press/heater"],
        observations=["press/Platen Temperature"],
        quanta=12,
    )
    ends = []
    for power in (0.0, 6.0):
        env.reset(seed=1)
        for _ in range(3):
            observation, reward, *_ = env.step(np.array([power], np.float32))
        ends.append((float(observation[0]), reward))
    assert ends[1][0] > ends[0][0] + 3
    assert ends[1][1] < ends[0][1] - 5


def test_a_score_is_the_reward_of_the_last_step(short):
    env = ScenarioEnv(short, reward="rows: count")
    rewards = [row[-1] for row in episode(env, 1)[0][1:]]
    assert rewards[:-1] == [0, 0, 0, 0]
    assert rewards[-1] >= 5


def test_a_signal_that_a_fault_may_lead_out_of_its_range_has_none(short):
    env = ScenarioEnv(short, reward="rig/Current", observations=["rig/Pressure", "rig/Current"])
    space = env.observation_space
    assert np.isinf(space.low[0])
    assert np.isfinite(space.low[1])
    rows, _ = episode(env, 2)
    assert all(row[:2] in space for row in (each.astype(np.float32) for each in rows))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reward": "rig/Presure"}, "no signal that is a number 'rig/Presure'"),
        ({"reward": "rig/Current", "actions": ["rig/opning"]}, "there is no input 'rig/opning'"),
        ({"reward": "rig/Current", "observations": ["x"]}, "no signal that is a number 'x'"),
    ],
)
def test_what_the_scenario_does_not_have_is_named(short, options, words):
    with pytest.raises(Unknown, match=words):
        ScenarioEnv(short, **options)


def test_a_score_that_there_is_not_is_named(short):
    with pytest.raises(Unknown, match="there are pressure: "):
        episode(ScenarioEnv(short, reward="rows: cuont"), 1)


def test_without_gymnasium_the_extra_is_named():
    code = "import sys; sys.modules['gymnasium'] = None; import testbed.scenario.gymnasium_env"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert "pip install 'connected-testbed[gym]'" in ended.stderr


def test_the_page_runs(monkeypatch, capsys):
    monkeypatch.chdir(sources.ROOT)
    (block,) = (each for each in blocks.of(PAGE) if each.language == "python")
    exec(compile(block.text, str(block), "exec"), {})  # noqa: S102 - our own page
    assert "'seed': 7, 'passed': " in capsys.readouterr().out


def test_the_example_runs():
    command = [sys.executable, sources.ROOT / "examples" / "random_policy.py"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert ended.stdout.startswith("90 steps, return -")
