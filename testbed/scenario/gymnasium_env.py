"""A scenario as an environment of Gymnasium, for who trains a controller by reinforcement learning.

from testbed.scenario.gymnasium_env import ScenarioEnv

env = ScenarioEnv("heater-control.yaml", actions=["press/heater"], reward=near_190)
observation, info = env.reset(seed=7)
observation, reward, terminated, truncated, info = env.step(env.action_space.sample())

The machines are computed in this process, without a server; an FMU in a process of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from broker.clock import WallClock
from broker.errors import Invalid, Unknown
from broker.streams import Signal
from testbed.scenario import stepped_scenario
from testbed.scenario.stepped_scenario import SteppableScenario, SteppedScenario
from testbed_scenarios.catalogue import ParameterFacts
from testbed_scenarios.timeline_model import FaultDraw, SignalFault

try:
    import gymnasium
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        "an environment needs gymnasium, which is not installed: pip install"
        " 'connected-testbed[gym]'",
        name="gymnasium",
    ) from exc

Column = npt.NDArray[np.float32]
Reward = str | Callable[[Mapping[str, float]], float]


class ScenarioEnv(gymnasium.Env[Column, Column]):
    """A scenario whose inputs an agent sets, and whose signals it observes, a step at a time.

    An episode is truncated where the scenario ends, and never terminated.  The same seed and the
    same actions give the same episode.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it

    def __init__(
        self,
        file: str | Path,
        *,
        reward: Reward,
        observations: Sequence[str] = (),
        actions: Sequence[str] = (),
        quanta: int = 1,
    ) -> None:
        """Read a scenario; raises Unknown or Invalid for whatever it does not have.

        reward: a signal such as `press/Heater Power`, whose newest value each step gives; a score,
        `EXPECTATION: VALUE` such as `the step to 190 Cel: overshoot`, which the last step gives and
        all others 0; or a function of the newest values of all signals that are numbers.
        observations: signals, all that are numbers if empty, as float32 in their units.  actions:
        inputs, all if empty, in their units.  quanta: of the scenario, in one step.
        """
        self._scenario = SteppableScenario(Path(file), WallClock())
        self._run = self._scenario.open()
        self._reward = reward
        self._quanta = quanta
        if quanta < 1:
            raise Invalid(f"a step of {quanta} quanta", hint="1 or more")
        numbers = {n: s for n, s in self._run.signals.items() if stepped_scenario.is_number(s)}
        self._numbers = tuple(numbers)
        self.observed = _chosen("signal that is a number", observations, numbers)
        self.acting = _chosen("input", actions, self._run.inputs)
        if isinstance(reward, str) and ": " not in reward:
            _chosen("signal that is a number", [reward], numbers)
        self._last = dict.fromkeys(numbers, 0.0)
        self.observation_space = self._observation_space()
        self.action_space = self._action_space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Column, dict[str, Any]]:
        """Begin an episode; seed: of everything random in it, drawn if None.  Options: none."""
        super().reset(seed=seed, options=options)
        chosen = int(self.np_random.integers(2**31)) if seed is None else seed
        begun = self._scenario.open(chosen)
        self._run.close()
        self._run = begun
        self._last = dict.fromkeys(self._numbers, 0.0)
        return self._observation(), self._about()

    def step(self, action: Column) -> tuple[Column, float, bool, bool, dict[str, Any]]:
        """Set the inputs, let the time of a step pass, and observe.

        action: one value for each input of `acting`, limited to its range.  Raises Invalid after
        the end of the episode.
        """
        if not self._run.quanta_left:
            raise Invalid("the episode is over", hint="begin another: reset()")
        for name, value in zip(self.acting, np.asarray(action).tolist(), strict=True):
            self._run.overwrite(name, value)
        self._run.advance(self._quanta)
        observation = self._observation()
        is_over = not self._run.quanta_left
        return observation, self._rewarded(is_over=is_over), False, is_over, self._about()

    def close(self) -> None:
        """End the processes of the machines."""
        self._run.close()
        super().close()

    def _observation(self) -> Column:
        """The newest values; of a signal that has had none 0, or the nearest to it in its range."""
        for name in self._last:
            value = self._run.newest(name)
            if value is not None:
                self._last[name] = float(value)
        values = np.array([self._last[name] for name in self.observed], np.float32)
        silent = np.array([self._run.newest(name) is None for name in self.observed])
        space = self.observation_space
        if isinstance(space, gymnasium.spaces.Box):
            values[silent] = np.clip(values, space.low, space.high)[silent]
        return values

    def _rewarded(self, *, is_over: bool) -> float:
        if callable(self._reward):
            return float(self._reward(dict(self._last)))
        if ": " not in self._reward:
            return self._last[self._reward]
        return _score(self._run, self._reward) if is_over else 0.0

    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = {"time_s": self._run.time_s, "seed": self._run.plan.seed}
        if not self._run.quanta_left:
            about["passed"] = self._run.judge().passed
        return about

    def _observation_space(self) -> gymnasium.Space[Column]:
        """Ranges of the signals; none where a fault of a sensor may lead out of it."""
        limits = [
            (-np.inf, np.inf) if self._may_leave(name) else _range_of(self._run.signals[name])
            for name in self.observed
        ]
        return _box(limits)

    def _may_leave(self, name: str) -> bool:
        timeline = self._run.plan.scenario.timeline
        return any(
            each.on == name for each in timeline if isinstance(each, SignalFault | FaultDraw)
        )

    def _action_space(self) -> gymnasium.Space[Column]:
        limits = []
        for name in self.acting:
            low, high = _range_of(self._run.inputs[name])
            if not (np.isfinite(low) and np.isfinite(high)):
                raise Invalid(f"the input {name} has no range to choose from", hint="leave it out")
            limits.append((low, high))
        if not limits:
            raise Invalid("the scenario has no inputs", hint="a model or an FMU has some")
        return _box(limits)


def _chosen(noun: str, names: Sequence[str], known: Mapping[str, object]) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise Unknown(f"there is no {noun} {name!r}", hint=f"there are {', '.join(known)}")
    return tuple(names or known)


def _range_of(part: Signal | ParameterFacts) -> tuple[float, float]:
    if isinstance(part, Signal) and part.dtype.value == "bool":
        return 0.0, 1.0
    low = -np.inf if part.low is None else float(part.low)
    return low, np.inf if part.high is None else float(part.high)


def _box(limits: Sequence[tuple[float, float]]) -> gymnasium.Space[Column]:
    low, high = (np.array(column, np.float32) for column in zip(*limits, strict=True))
    return cast("gymnasium.Space[Column]", gymnasium.spaces.Box(low, high, dtype=np.float32))


def _score(run: SteppedScenario, name: str) -> float:
    """A score of the expectations; 0 where it has no value.  Raises Unknown for no such one."""
    metrics = run.judge().metrics
    if name not in metrics:
        raise Unknown(f"there is no score {name!r}", hint=f"there are {', '.join(metrics)}")
    value = metrics[name]
    return 0.0 if value is None or isinstance(value, str) else float(value)
