"""Tables and profiles say what was measured, and what was not."""

from benchmarks import library_table, profiling, table

COSTS = {f"{part}_cpu_s_per_million": 0.5 for part in ("gateway", "broker", "recorder", "store")}


def test_a_goal_is_met_missed_or_not_measured():
    document = {
        "ours": {"own": {"ten": COSTS | {"source_cpu_s_per_million": 0.1}}},
        "held_values_per_s": {"own": 90_000, "shared": None},
        "parts": {"cost": {"commit": "abc", "quick": False, "load_before": 0.5}},
    }
    lines = table.of(document).splitlines()
    own = "own time stamps, ten a document, CPU-s per million"
    assert f"| gateway + recorder, {own} | ≤ 2 | 1 | yes |" in lines
    held = "values/s held with four zeros for 60 s"
    assert f"| {held}, own time stamps | ≥ 110,000 | 90,000 | **no** |" in lines
    assert f"| {held}, shared time stamps | ≥ 140,000 | - | - |" in lines


def test_telegraf_stands_beside_ours_and_a_goal_that_is_missed_is_shown_as_missed():
    peer = {part: 4 * cost for part, cost in COSTS.items()}
    settings = {"ten": peer | {"ours": COSTS, "tuned": peer}}
    ratio = {"pair": 4.0, "chain": 4.0, "tuned": {}}
    document = {
        "peers": {"telegraf": {"own": settings}},
        "ratio": {"telegraf": {"own": {"ten": ratio}}},
    }
    lines = table.of(document).splitlines()
    what = "times cheaper than Telegraf, whole chain"
    assert f"| {what}, own time stamps, ten a document | ≥ 5 | 4 | **no** |" in lines
    assert f"| {what}, shared time stamps, ten a document | ≥ 10 | - | - |" in lines
    run = "own time stamps, ten a document | {0} | {0} | {0} | {0}"
    assert f"| ours, {run.format(0.5)} | 1 | 2 |" in lines
    assert f"| Telegraf, {run.format(2)} | 4, 4 times | 8, 4 times |" in lines
    assert f"| Telegraf tuned, {run.format(2)} | 4, not comparable | 8, not comparable |" in lines


def test_the_table_replaces_what_stood_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.put_into(page, {})
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert table.of({}) in text


def test_a_profile_counts_a_function_once_a_stack():
    spent = profiling.summed(["main;work;work 3", "main;wait 1"])
    assert spent.alone == {"work": 0.75, "wait": 0.25}
    assert spent.together == {"main": 1.0, "work": 0.75, "wait": 0.25}


def test_a_profile_leaves_out_threads_that_wait():
    spent = profiling.summed(["main;_worker (thread.py:69) 3", "main;work 1"])
    assert spent.alone == {"work": 1.0}


def test_only_the_comparisons_that_were_measured_are_in_the_table_of_libraries():
    document = {
        "mqtt_clients": {
            name: {"cpu_us": cpu_us, "wall_us": 10 * cpu_us}
            for name, cpu_us in (("ours", 12.34), ("paho", 72.0), ("aiomqtt", 140.0))
        },
        "machine": {},
        "parts": {"mqtt-clients": {"commit": "abc", "quick": False, "load_before": 0.5}},
    }
    text = library_table.of(document)
    assert "| a message of 2.5 kB at QoS 1, CPU, µs | 12 | 72 | 140 |" in text.splitlines()
    assert "InfluxDB" not in text
    assert "commit abc" in text
