"""The score of what a program published, against a machine's ledger, from a real server."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from broker.clock import NS_PER_S, WallClock
from broker.errors import Invalid, Unknown
from broker.namespace import StreamAddress
from broker.settings import BusSettings
from broker.streams import Dtype, Signal
from simulators import ledger
from simulators.model import SourceRow
from simulators.models.pump_rig import SIGNALS
from testbed.demo import score
from testbed.terminal.run import Exit
from testbed_api import service
from testbed_api.settings import ServerSettings
from testbed_sdk import PrototypeSettings, connect
from testbed_sdk.history import HistoryQuery
from tests.owners import Owners, founded

SCORE = StreamAddress("company", "detector", "score")
NOW_NS = WallClock().now_ns() // NS_PER_S * NS_PER_S
HOUR = HistoryQuery("live", NOW_NS - 3_600 * NS_PER_S, NOW_NS + 3_600 * NS_PER_S, ("anomaly",))


@pytest.fixture
async def owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Owners]:
    """The owner of a company, as whom the commands ask."""
    settings = ServerSettings(folder=tmp_path / "data", api_port=0, mqtt_port=0)
    async with service.serve(settings, WallClock()) as running:
        monkeypatch.setenv("TESTBED_API", f"http://{running.api}")
        monkeypatch.setenv("TESTBED_BROKER", f"mqtt://{running.broker}")
        url, administrator = f"http://{running.api}", str(running.administrator)
        async with founded(url, administrator, ("company",)) as organisations:
            monkeypatch.setenv("TESTBED_CREDENTIAL", organisations.secret)
            yield organisations


async def published(
    owners: Owners,
    labels: Sequence[bool],
    *,
    first: int = 0,
    signal: Signal = Signal("anomaly", Dtype.BOOL),  # noqa: B008 - frozen
) -> None:
    """Let a program publish a label for each row from `first` on."""
    secret = await owners.credential("detector", writes=[SCORE])
    settings = PrototypeSettings(outputs={"score": SCORE})
    times = [time_of(first + at) for at in range(len(labels))]
    async with connect(settings, BusSettings(credential=SecretStr(secret))) as testbed:
        output = await testbed.output("score", [signal])
        await output.publish(times, {signal.name: labels})
        await output.wait_drained()


def time_of(row: int) -> int:
    return NOW_NS - (100 - row) * NS_PER_S


def offered(folder: Path, faulty: Sequence[bool | None]) -> Path:
    """The ledger of a machine that offered these rows."""
    path = folder / "offered.jsonl"
    rows = [
        SourceRow(time_of(at), (1.0,) * len(SIGNALS), anomaly=flag, cause="valve" if flag else "")
        for at, flag in enumerate(faulty)
    ]
    with ledger.create(path, [signal.name for signal in SIGNALS]) as entries:
        entries.append(rows)
    return path


async def test_a_program_that_came_late_is_scored_for_the_rows_from_its_first_label_on(
    owners: Owners, tmp_path: Path
) -> None:
    path = offered(tmp_path, [True] * 10 + [False] * 5 + [True] * 5 + [False] * 5)
    await published(owners, [False] * 4 + [True] * 4, first=12)
    result = await score.score(str(SCORE), HOUR, path)
    assert (result.from_ns, result.to_ns) == (time_of(12), time_of(19))
    assert result.as_json() | {"from": "", "to": ""} == {
        "stream": str(SCORE),
        "space": "live",
        "from": "",
        "to": "",
        "rows": 8,
        "answered": 8,
        "f1": pytest.approx(8 / 9),
        "far": 0.0,
        "mar": 0.2,
        "kinds": {"valve": {"flagged": 4, "rows": 5}},
    }
    assert result.by_kind == (
        "Rows flagged by kind of fault: valve 4 of 5. None so far: bearing, cavitation."
    )
    assert result.rating.quality.startswith("F1 0.889. Of 5 rows with a fault it flagged 4")
    assert result.exit_code(None) is result.exit_code(0.8) is Exit.DONE
    assert result.exit_code(0.9) is Exit.NEGATIVE


async def test_rows_whose_truth_is_not_known_are_not_scored(owners: Owners, tmp_path: Path) -> None:
    await published(owners, [True])
    result = await score.score(str(SCORE), HOUR, offered(tmp_path, [None, None]))
    assert result.rating.quality.startswith("Unknown: the data do not say")


async def test_labels_about_other_rows_are_told(owners: Owners, tmp_path: Path) -> None:
    path = offered(tmp_path, [True])
    await published(owners, [True, True], first=5)
    with pytest.raises(Invalid, match=r"none of the 2 labels of .* the time stamp of a row"):
        await score.score(str(SCORE), HOUR, path)
    earlier = HistoryQuery("live", 0, HOUR.from_ns, HOUR.signals)
    with pytest.raises(Unknown, match="has no label in space live from 1970"):
        await score.score(str(SCORE), earlier, path)
    with pytest.raises(Unknown, match=r"the ledger .* cannot be read"):
        await score.score(str(SCORE), HOUR, tmp_path / "none.jsonl")


async def test_a_score_that_is_no_label_is_told(owners: Owners, tmp_path: Path) -> None:
    await published(owners, [0.5], signal=Signal("anomaly"))
    with pytest.raises(Invalid, match="the signal 'anomaly' of company/detector/score is float64"):
        await score.score(str(SCORE), HOUR, offered(tmp_path, [True]))
