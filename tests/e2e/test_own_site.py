"""A site of one's own: enrolled by a code, chosen by its label, locked out."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs import walking
from tests.e2e import town as towns
from tests.e2e.test_demo import TESTBED, run
from tests.e2e.town import Town

WITHIN_S = 60.0
PROGRAM = "import time\nprint('here', flush=True)\ntime.sleep(600)\n"
MANIFEST = """\
prototype: watch
image: {build: .}
command: python prototype.py
outputs: {state: {signals: {ok: {dtype: bool}}}}
health: {starts_within: 1h}
"""


@contextmanager
def site(town: Town, folder: Path, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """The factory's runner, which trusts the company."""
    words = ["--code", code, "--api", town.api, "--broker", town.broker, "--folder", folder]
    command = [*TESTBED, "runner", "run", *words, "--trust", "company", "--end-programs"]
    command += ["--product", "process"]
    with (
        (folder.parent / "site.log").open("wb") as log,
        subprocess.Popen(command, stderr=log, env=walking.inherited()) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def test_a_site_of_ones_own_is_enrolled_and_chosen_by_its_label(tmp_path: Path) -> None:
    project = tmp_path / "watch"
    project.mkdir()
    (project / "prototype.yaml").write_text(MANIFEST)
    (project / "prototype.py").write_text(PROGRAM)
    (project / "Containerfile").write_text("FROM scratch\n")
    with towns.founded(tmp_path / "town", "factory", "company", secure=False) as town:
        fay, cora = town.environment("fay"), town.environment("cora")

        def typed(*words: str | Path, environment: dict[str, str], code: int = 0) -> str:
            done = run(*words, environment=environment)
            assert done.returncode == code, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            return str(done.stdout)

        def sites() -> dict[str, dict[str, object]]:
            listed = json.loads(typed("runner", "list", "--json", environment=fay))
            return {each["id"]: each for each in listed["items"]}

        words = ("runner", "code", "site-1", "--label", "edge", "--open-to", "company")
        code = typed(*words, environment=fay).strip()
        with site(town, tmp_path / "site", code):
            deadline_s = time.monotonic() + WITHIN_S
            while not sites().get("site-1", {}).get("takes_work"):
                assert time.monotonic() < deadline_s, (tmp_path / "site.log").read_text()
                time.sleep(0.3)  # noqa: TID251 - a process acts in real time
            choice = ("--stage", "simulated", "--site", "edge", "--no-wait", "--json")
            deploying = ("deploy", project, *choice)
            deployment = json.loads(typed(*deploying, environment=cora))
            number = str(deployment["id"])
            log = ("deployment", "logs", number)
            while "here" not in typed(*log, environment=cora):
                assert time.monotonic() < deadline_s, (tmp_path / "site.log").read_text()
                time.sleep(0.3)  # noqa: TID251 - likewise
            show = ("deployment", "show", number, "--json")
            assert json.loads(typed(*show, environment=cora))["site"] == "site-1"
            assert sites()["site-1"]["labels"] == ["edge"]
            typed("runner", "lock-out", "site-1", environment=fay)
            ended = json.loads(typed(*show, environment=cora))
            assert (ended["state"], ended["end"]["cause"]) == ("ended", "site")
