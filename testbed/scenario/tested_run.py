"""The result of a scenario in a test or a notebook: verdict, scores, and all samples of the run."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from broker.clock import WallClock
from broker.errors import Unknown
from broker.streams import StreamSpec
from testbed.scenario import loading, matrix_run
from testbed.scenario.matrix_run import MatrixProgress, RunOptions
from testbed.scenario.result import RunResult
from testbed_scenarios.expectations.result import Observed
from testbed_scenarios.verdict import Verdict
from testbed_sdk.history import History


class TestedRun:
    """One run of a scenario, for a test."""

    def __init__(self, result: RunResult) -> None:
        """result: of the run."""
        self._result = result

    def __repr__(self) -> str:
        """The verdict in sentences, which pytest prints for `assert result.passed, result`."""
        return "\n".join([self._result.title, *self.verdict.lines()])

    @property
    def verdict(self) -> Verdict:
        """The verdict, with the result of each expectation."""
        return self._result.verdict

    @property
    def passed(self) -> bool:
        """Whether every expectation passed, and nothing else made the run fail."""
        return self.verdict.passed

    @property
    def hash(self) -> str:
        """The hash of all samples: equal runs have an equal one."""
        return self.verdict.hash

    def observed(self, name: str) -> Observed:
        """A value that an expectation observed, such as `precision` or `overshoot`.

        The first expectation that has it counts.  Raises Unknown if none has.
        """
        values = [each.observed for each in self.verdict.results]
        for each in values:
            if name in each:
                return each[name]
        known = sorted({key for each in values for key in each})
        raise Unknown(
            f"no expectation of the scenario observes {name!r}",
            hint=f"they observe {', '.join(known) or 'nothing'}; add one, such as {{detection:"
            " detector/score/anomaly, truth: rig, f1: {at_least: 0}}",
        )

    @property
    def f1(self) -> float:
        """The F1 of the scenario's expectation on detection; raises Unknown if it has none."""
        return _number(self.observed("f1"))

    @property
    def precision(self) -> float:
        """The precision, likewise."""
        return _number(self.observed("precision"))

    @property
    def recall(self) -> float:
        """The recall, likewise."""
        return _number(self.observed("recall"))

    def history(self, stream: str) -> History:
        """All samples of a stream, by its name in the file: `rig`, or `detector/score`.

        Its `pandas()`, and its columns, are those of the SDK.  Raises Unknown for no such stream.
        """
        observed = self._result.observed
        if stream not in observed.streams:
            raise Unknown(
                f"there is no stream {stream!r} in this run",
                hint=f"there are {', '.join(sorted(observed.streams))}",
            )
        address = self._result.plan.stream(stream)
        spec = StreamSpec(address, tuple(observed.signals[stream].values()))
        return History(spec, observed.streams[stream], tuple(observed.gaps.get(stream, ())))


def _number(value: Observed) -> float:
    return float("nan") if value is None else float(value)


def run(path: str | Path, *, seed: int | None = None, folder: Path | None = None) -> TestedRun:
    """Run a scenario file in virtual time, in a test or in a notebook.

    seed: that of the file if None.  folder: for data and logs, a temporary one that goes if None.
    Raises Invalid for a scenario with several runs: choose one with `seed`.
    """
    if folder is None:
        with TemporaryDirectory(prefix=matrix_run.PREFIX) as temporary:
            return run(path, seed=seed, folder=Path(temporary))
    clock = WallClock()
    loaded = loading.load(Path(path), clock)
    loading.check_mode(loaded, is_virtual=True)
    options = RunOptions(seed=seed, folder=folder)
    matrix_run.only_plan(loaded, options, "pass seed=…, and sweep with pytest.mark.parametrize")
    running = matrix_run.run_all(loaded, options, clock, MatrixProgress())
    with ThreadPoolExecutor(1) as thread:  # the test may have an event loop of its own
        (result,) = thread.submit(asyncio.run, running).result()
    return TestedRun(result)
