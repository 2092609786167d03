"""The card of a recording for tools of machine learning, in Croissant 1.1.  Pure.

Source: MLCommons, Croissant Format Specification 1.1, http://mlcommons.org/croissant/1.1: the
required properties of a dataset, FileObject, RecordSet and Field, arrays (`isArray`, `arrayShape`),
splits (`cr:Split`) and labels (`cr:Label`); the context is that of its appendix 1.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from broker.recordings import layout
from broker.recordings.manifest import RecordedSignal, RecordedStream, RecordingManifest
from broker.streams import Dtype, Signal

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
PARQUET_TYPE = "application/x-parquet"
"""The name by which readers of Croissant know Parquet, rather than its registered media type."""
SPLITS = "splits"
_JSON = "@json"
_CR_TERMS = (  # of 1.1, and in the last row those that 1.0 had besides and its readers look for
    *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty"),
    *("excludes", "extract", "field", "fileObject", "fileProperty", "fileSet", "format"),
    *("includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField"),
    *("readLines", "recordSet", "references", "regex", "sdVersion", "separator", "source"),
    *("subField", "transform", "unArchive", "value"),
    *("path", "repeated", "replace", "samplingRate"),
)
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": _JSON},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": _JSON},
    **{term: f"cr:{term}" for term in _CR_TERMS},
}
DATA_TYPES: Mapping[Dtype, str] = {
    Dtype.FLOAT64: "sc:Float",
    Dtype.INT64: "sc:Integer",
    Dtype.BOOL: "sc:Boolean",
    Dtype.STRING: "sc:Text",
}
_SPLIT_URLS = {
    "train": "cr:TrainingSplit",
    "validation": "cr:ValidationSplit",
    "test": "cr:TestSplit",
}


def to_json(
    manifest: RecordingManifest, files: Mapping[str, tuple[int, str]], *, url: str
) -> bytes:
    """The content of croissant.json.

    files: size in bytes and SHA-256 of each Parquet file by its path.  url: address of the dataset.
    """
    owners = sorted({stream.address.organisation for stream in manifest.streams})
    record_sets = [_record_set(manifest, stream) for stream in manifest.streams]
    card = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": manifest.name,
        "description": manifest.description or _description(manifest),
        "license": manifest.licence,
        "url": url,
        "creator": [{"@type": "sc:Organization", "name": owner} for owner in owners],
        "datePublished": manifest.created[:10],
        "version": "1.0.0",
        "isLiveDataset": False,
        "distribution": [_file(path, *files[path]) for path in sorted(files)],
        "recordSet": [*([_split_set(manifest)] if manifest.splits else []), *record_sets],
    }
    return orjson.dumps(card, option=orjson.OPT_INDENT_2) + b"\n"


def _description(manifest: RecordingManifest) -> str:
    streams = ", ".join(str(stream.address) for stream in manifest.streams)
    span = f"from {manifest.from_} to {manifest.to}"
    return f"Samples ({manifest.source}) of {streams} in the space {manifest.space}, {span}."


def _file(path: str, size: int, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{size} B",
        "encodingFormat": PARQUET_TYPE,
        "sha256": sha256,
    }


def _split_set(manifest: RecordingManifest) -> dict[str, Any]:
    names = (f"{SPLITS}/name", f"{SPLITS}/url")
    return {
        "@type": "cr:RecordSet",
        "@id": SPLITS,
        "name": SPLITS,
        "dataType": "cr:Split",
        "key": {"@id": names[0]},
        "field": [
            {"@type": "cr:Field", "@id": names[0], "name": "name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": names[1], "name": "url", "dataType": "sc:URL"},
        ],
        "data": [
            {names[0]: split.name, names[1]: _SPLIT_URLS[split.name]} for split in manifest.splits
        ],
    }


def _record_set(manifest: RecordingManifest, stream: RecordedStream) -> dict[str, Any]:
    name = str(stream.address).replace("/", "_")
    spec = stream.stream_spec()
    labels = manifest.label_names(stream.address)
    description = "instant of the row, UTC"
    fields = [_field(name, stream.file, layout.TIME, "sc:DateTime", description)]
    for recorded in stream.signals:
        signal = spec.signal(recorded.name)
        data_type: Any = DATA_TYPES[signal.dtype]
        if signal.name in labels:
            data_type = [data_type, "cr:Label"]
        field = _field(name, stream.file, recorded.column, data_type, _meaning(signal))
        fields.append(field | _array(signal))
        fields += _quality_fields(name, stream.file, recorded)
    if manifest.splits:
        description = "part of the dataset that the row is in"
        field = _field(name, stream.file, layout.SPLIT, "sc:Text", description)
        fields.append(field | {"references": {"field": {"@id": f"{SPLITS}/name"}}})
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": spec.description or f"samples of {stream.address}",
        "key": {"@id": _field_id(name, layout.TIME)},
        "field": fields,
    }


def _meaning(signal: Signal) -> str:
    unit = "without unit" if signal.unit == "1" else f"in {signal.unit} (UCUM)"
    return f"{signal.description or signal.name}, {unit}; empty without a usable sample"


def _array(signal: Signal) -> dict[str, Any]:
    """The properties of a field that is an array."""
    return {"isArray": True, "arrayShape": str(signal.shape[0])} if signal.shape else {}


def _quality_fields(name: str, file: str, recorded: RecordedSignal) -> list[dict[str, Any]]:
    if recorded.quality is None:
        return []
    description = f"quality of {recorded.name}: 0 good, 1 uncertain, 2 bad; empty without a sample"
    return [_field(name, file, recorded.quality, "sc:Integer", description)]


def _field_id(record_set: str, column: str) -> str:
    """The id of a column: an IRI may have no space."""
    return f"{record_set}/{quote(column, safe='')}"


def _field(
    record_set: str, file: str, column: str, data_type: object, description: str
) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": _field_id(record_set, column),
        "name": column,
        "description": description,
        "dataType": data_type,
        "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
    }
