"""The manifest and the card: what they refuse, and what tools of machine learning find in them."""

import orjson
import pytest

from broker import messages
from broker.batch import Source
from broker.errors import Corrupt
from broker.namespace import StreamAddress
from broker.recordings import croissant, layout, manifest, splits
from broker.recordings.manifest import (
    CoveringGrant,
    LabelSignal,
    RecordedSignal,
    RecordedStream,
    RecordingCreator,
    RecordingManifest,
)
from broker.streams import Dtype, Signal, StreamSpec

RIG = StreamAddress("factory", "pump-rig", "rig")
SPEC = StreamSpec(
    RIG,
    (
        Signal("Volume Flow", unit="L/min"),
        Signal("spectrum", unit="mm/s", shape=(16,)),
        Signal("anomaly", Dtype.BOOL),
    ),
)
DAY_NS = 86_400 * 10**9


def grant(number, until):
    return CoveringGrant(id=number, purpose="p", decided_by="fay", from_=None, until=until)


def described(grants=(), **changes):
    recorded = [
        RecordedSignal(name="Volume Flow", column="Volume Flow", quality="q", samples=5),
        RecordedSignal(name="spectrum", column="spectrum", quality=None, samples=5),
        RecordedSignal(name="anomaly", column="anomaly", quality=None, samples=5),
    ]
    stream = RecordedStream(
        spec=orjson.loads(messages.encode_spec(SPEC)),
        file=layout.stream_file(RIG),
        source=Source.LIVE,
        rows=5,
        first=None,
        last=None,
        signals=recorded,
        grants=None if grants is None else list(grants),
    )
    facts = {
        "name": "valve-1",
        "description": "",
        "licence": "none",
        "created": "1970-01-02T00:00:00.000000000Z",
        "creator": RecordingCreator(principal="cora", organisation="company"),
        "software": {"connected-testbed": "0.1.0"},
        "space": "live",
        "from_": "1970-01-01T00:00:00.000000000Z",
        "to": "1970-01-02T00:00:00.000000000Z",
        "streams": [stream],
        "gaps": 0,
        "labels": [LabelSignal(stream=str(RIG), signal="anomaly")],
        "splits": list(splits.parse("70/15/15", 0, DAY_NS)),
        "run": None,
    }
    return RecordingManifest(**{**facts, **changes})


def test_a_manifest_is_read_back():
    written = described()
    assert manifest.from_json(manifest.to_json(written)) == written
    assert written.stream(RIG).stream_spec() == SPEC
    assert written.label_names(RIG) == {"anomaly"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "not the manifest of a recording"),
        ({"version": 2}, "version 2, this program reads 1"),
        ({"more": 1}, "more"),
        ({"from": "yesterday"}, "yesterday"),
        ({"labels": [{"stream": "factory/mill/x", "signal": "y"}]}, "factory/mill/x/y"),
        ({"labels": [{"stream": str(RIG), "signal": "y"}]}, "has no signal 'y'"),
        ({"streams": [1]}, "streams.0"),
    ],
)
def test_a_manifest_that_is_none_is_refused_with_the_field(change, words):
    document = {**orjson.loads(manifest.to_json(described())), **change}
    with pytest.raises(Corrupt, match=words):
        manifest.from_json(orjson.dumps(document))


@pytest.mark.parametrize(
    ("field", "value"),
    [("file", "streams/../../x.parquet"), ("signals", []), ("spec", {"stream": "a/b/c"})],
)
def test_a_stream_that_does_not_fit_its_spec_is_refused(field, value):
    document = orjson.loads(manifest.to_json(described()))
    document["streams"][0][field] = value
    with pytest.raises(Corrupt, match=r"manifest\.json"):
        manifest.from_json(orjson.dumps(document))


def test_a_grant_has_ended_once_all_that_covered_the_stream_have():
    early, late = grant(3, "1970-01-03T00:00:00Z"), grant(4, "1970-01-04T00:00:00Z")
    assert described([early, late]).ended_grants(3 * DAY_NS - 1) == []
    assert described([early, late]).ended_grants(3 * DAY_NS) == [(str(RIG), 4)]
    assert described([early, grant(5, None)]).ended_grants(9 * DAY_NS) == []
    assert described([]).ended_grants(9 * DAY_NS) == []
    assert described(None).ended_grants(9 * DAY_NS) == []


def test_names_that_differ_in_case_alone_get_columns_of_their_own():
    columns = layout.columns(["Pressure", "pressure", "time", "split"], has_split=True)
    values = [each.value for each in columns.values()]
    assert values == ["Pressure", "pressure:2", "time:2", "split:2"]
    assert columns["pressure"].quality == "pressure:2:quality"
    assert layout.columns(["split"], has_split=False)["split"].value == "split"


def test_the_card_has_what_croissant_1_1_requires():
    files = {layout.stream_file(RIG): (1234, "1" * 64), layout.GAPS: (99, "2" * 64)}
    card = orjson.loads(croissant.to_json(described(), files, url="https://example.org"))
    required = ("@context", "@type", "conformsTo", "description", "license", "name", "url")
    assert all(card[name] for name in (*required, "creator", "datePublished"))
    assert card["@type"] == "sc:Dataset"
    assert card["@context"]["conformsTo"] == "dct:conformsTo"
    assert card["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert {each["@id"]: each["sha256"] for each in card["distribution"]} == {
        path: sha256 for path, (_, sha256) in files.items()
    }
    for each in card["distribution"]:
        assert each["@type"] == "cr:FileObject"
        assert all(each[name] for name in ("name", "contentUrl", "contentSize", "encodingFormat"))
    split, rows = card["recordSet"]
    assert split["dataType"] == "cr:Split"
    assert [each["splits/url"] for each in split["data"]] == [
        "cr:TrainingSplit",
        "cr:ValidationSplit",
        "cr:TestSplit",
    ]
    fields = {each["name"]: each for each in rows["field"]}
    assert list(fields) == ["time", "Volume Flow", "q", "spectrum", "anomaly", "split"]
    spectrum = fields["spectrum"]
    assert (spectrum["dataType"], spectrum["isArray"]) == ("sc:Float", True)
    assert spectrum["arrayShape"] == "16"
    assert card["@context"]["arrayShape"] == "cr:arrayShape"
    assert "isArray" not in fields["Volume Flow"]
    assert fields["anomaly"]["dataType"] == ["sc:Boolean", "cr:Label"]
    assert "L/min" in fields["Volume Flow"]["description"]
    assert fields["split"]["references"] == {"field": {"@id": split["key"]["@id"]}}
    ids = [card[kind][at]["@id"] for kind in ("distribution", "recordSet") for at in (0, 1)]
    ids += [each["@id"] for each in rows["field"]]
    assert len(set(ids)) == len(ids)
    assert not any(" " in each for each in ids)
    assert all(each["source"]["fileObject"]["@id"] in files for each in rows["field"])
