"""A server that is restarted in a run: its hash is that of the run without the restart."""

import asyncio
import shutil
from pathlib import Path

from broker.clock import WallClock
from testbed.scenario import loading, matrix_run
from testbed.scenario.matrix_run import MatrixProgress, RunOptions

EXAMPLES = Path(__file__).parents[2] / "examples/scenarios"
RESTART = "timeline:\n  - {fault: server-restart, at: 30s}\n"


async def run_of(folder, text):
    """The result of the example with another text, in a folder of its own."""
    folder.mkdir()
    shutil.copy(EXAMPLES / "row_count.py", folder)
    file = folder / "server-restart.yaml"
    file.write_text(text)
    loaded = loading.load(file, WallClock())
    options = RunOptions(folder=folder / "run")
    (result,) = await matrix_run.run_all(loaded, options, WallClock(), MatrixProgress())
    return result


async def test_a_restarted_server_changes_no_sample_of_a_run(tmp_path):
    text = (EXAMPLES / "server-restart.yaml").read_text()
    assert RESTART in text
    async with asyncio.TaskGroup() as tasks:
        restarted = tasks.create_task(run_of(tmp_path / "restarted", text))
        steady = tasks.create_task(run_of(tmp_path / "steady", text.replace(RESTART, "")))
    first, second = restarted.result(), steady.result()
    for result in (first, second):
        assert result.verdict.passed, "\n".join(result.verdict.lines())
        assert not any(result.observed.gaps.values())
    assert first.verdict.hash == second.verdict.hash
    logs = [tmp_path / name / "run/server.log" for name in ("restarted", "steady")]
    assert [log.read_text().count('"listeners were opened without TLS"') for log in logs] == [2, 1]
