"""Examples of samples in the reference and in the API's document: those of the demo's own rig."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from broker import codec, messages, run_clock
from broker.batch import BAD, Batch, Long, Wide
from broker.responses.streams import HistoryResponse
from broker.streams import StreamSpec
from simulators.models.pump_rig import SIGNALS, PumpRig
from testbed.demo.plan import RIG, ROWS, SEED
from testbed_api.http import openapi_examples
from tests.docs import blocks
from tests.docs.blocks import ROOT

SPEC = StreamSpec(RIG, SIGNALS)
ROWS_OF_THE_RIG = [row.values for row in PumpRig(seed=SEED, count=ROWS).rows()]
VALUES = {
    signal.name: {row[place] for row in ROWS_OF_THE_RIG} for place, signal in enumerate(SIGNALS)
}
"""Every value of the healthy rig, by signal."""


def documents(page: str, section: str) -> Iterator[bytes]:
    """The JSON documents in a section of a page of the reference."""
    for block in blocks.of(ROOT / "docs/reference" / page):
        if block.language == "json" and block.section == section:
            yield block.text.encode()


def foreign(batch_frames: tuple[Wide | Long, ...]) -> list[tuple[str, float]]:
    """The values that the rig never has."""
    return [
        (name, value)
        for frame in batch_frames
        for name, series in frame.series()
        for value in series.values[series.quality != BAD].tolist()
        if value not in VALUES[name]
    ]


def test_the_batch_is_one_of_the_rig() -> None:
    (document,) = documents("messages.md", "Batch")
    batch, misfits = codec.decode(document, SPEC)
    assert isinstance(batch, Batch)
    assert (misfits, foreign(batch.frames)) == ((), [])
    assert len(batch) > 0
    assert batch.gaps[0].signals[0] in SPEC.names


def test_mark_and_health_are_messages_that_are_read() -> None:
    (mark,) = documents("messages.md", "Mark")
    assert messages.decode_mark(mark).streams[RIG.stream]
    (health,) = documents("messages.md", "Health")
    assert messages.decode_health(health).alarms == ()


def test_a_tick_and_its_answer_are_messages_that_are_read() -> None:
    tick, ready = documents("messages.md", "The clock of a run")
    assert run_clock.decode_tick(tick).quantum == run_clock.decode_ready(ready).quantum


def test_the_history_is_one_of_the_rig() -> None:
    (document,) = documents("api.md", "History")
    check_history(json.loads(document))


def test_the_history_in_the_apis_document_is_one_of_the_rig() -> None:
    check_history(HistoryResponse.example())
    header, *rows = csv.reader(openapi_examples.CSV.splitlines())
    assert header[0] == "time"
    cells = [pair for _, *row in rows for pair in zip(header[1:], row, strict=True)]
    assert [cell for name, cell in cells if is_foreign(name, cell)] == []


def check_history(document: dict[str, object]) -> None:
    answer = HistoryResponse.model_validate(document)
    assert answer.stream == str(RIG)
    raw = orjson.loads(orjson.dumps(document["frames"]))
    frames, misfits = codec.frames_from_json(raw, SPEC)
    assert (list(misfits), foreign(tuple(frames))) == ([], [])
    names = {name for frame in frames for name, _ in frame.series()}
    assert names == {name for gap in answer.gaps for name in gap.signals}


def is_foreign(name: str, text: str) -> bool:
    """Whether a number, rounded as it is written, is none of the rig's."""
    digits = len(text.partition(".")[2])
    return float(text) not in {round(value, digits) for value in VALUES[name]}


@pytest.mark.parametrize("page", blocks.guides(), ids=lambda page: page.stem)
def test_what_a_guide_shows_of_the_rig_are_values_of_it(page: Path) -> None:
    wrong = [
        f"{name} {text}"
        for block in blocks.of(page)
        for name in SPEC.names
        for text in re.findall(rf"\b{re.escape(name)} (-?\d+\.\d+)\b", block.text)
        if is_foreign(name, text)
    ]
    assert wrong == []
