"""A random policy heats a press: a scenario as an environment of Gymnasium.

    pip install 'connected-testbed[gym]'
    python examples/random_policy.py

Put the agent of a library of reinforcement learning in the place of `action_space.sample()`.
"""

from collections.abc import Mapping
from pathlib import Path

from testbed.scenario.gymnasium_env import ScenarioEnv

SCENARIO = Path(__file__).parent / "scenarios" / "heater-control.yaml"
SET_POINT_CEL = 190.0


def near_set_point(values: Mapping[str, float]) -> float:
    """0 at the set point, and less the farther the platens are from it."""
    return -abs(values["press/Platen Temperature"] - SET_POINT_CEL)


def main() -> None:
    env = ScenarioEnv(
        SCENARIO,
        observations=["press/Platen Temperature", "press/Heater Power"],
        actions=["press/heater"],
        reward=near_set_point,
        quanta=2,
    )
    observation, _ = env.reset(seed=7)
    env.action_space.seed(7)
    total, steps, truncated = 0.0, 0, False
    while not truncated:
        observation, reward, _, truncated, _ = env.step(env.action_space.sample())
        total, steps = total + reward, steps + 1
    print(f"{steps} steps, return {total:.0f}, the platens are at {observation[0]:.1f} Cel")
    env.close()


main()
