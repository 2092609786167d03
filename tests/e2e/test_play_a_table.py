"""`testbed simulate FILE` plays a table that nobody wrote for it, and says what it took."""

import json
import subprocess

from tests.e2e.test_demo import TESTBED

TABLE = """Zeit;Druck [bar];Temp;Status
09.11.2026 10:00:00,5;1,5;60,1;ok
09.11.2026 10:00:01,5;;60,2;ok
09.11.2026 10:00:02,5;1,7;hot;ok
"""
SAID = [
    "read as utf-8, cells between ';', decimal comma; time in 'Zeit', day.month.year",
    "2 signals: Druck, Temp",
    "left out, no numbers: Status",
    "empty cells, which are no samples: 1",
    "cells that cannot be read, and are bad: 1",
    "line 4: Temp 'hot'",
]


def test_a_table_is_played_and_what_was_taken_is_said(tmp_path):
    (tmp_path / "press.csv").write_text(TABLE)
    command = [*TESTBED, "simulate", "press.csv", "--port", "0", "--json", "--speed", "100"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            events = [json.loads(process.stdout.readline())["event"]]
            while events[-1] != "played":
                events.append(json.loads(process.stdout.readline())["event"])
        finally:
            process.terminate()
            said = process.communicate(timeout=20)[1]
        assert process.returncode == 0
    assert events[0] == "ready"
    assert [line for line in said.splitlines() if line in SAID] == SAID
