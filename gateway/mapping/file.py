"""Mapping files: YAML that names the node or topic of each signal, read into a `Mapping`.

Reading collects every mistake of the file; each names the line, the field, the value and the right
form.
"""

import math
from collections.abc import Iterator
from collections.abc import Mapping as AnyMapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from broker import yaml_document
from broker.errors import Invalid, Unknown
from broker.namespace import EquipmentAddress, EquipmentKind, StreamAddress, checked_id
from broker.pydantic_checks import validated_by
from broker.streams import (
    FUTURE_LIMIT_S,
    MOST_ELEMENTS,
    MOST_LIMIT_S,
    MOST_VALUES,
    PAST_LIMIT_S,
    Dtype,
    Signal,
    StreamSpec,
    Trigger,
    checked_signal,
)
from broker.time_expressions import checked_zone
from broker.units import checked_unit
from gateway.mapping import broker_address, mqtt_source, node_names
from gateway.mapping.conversions import Conversion
from gateway.mapping.model import (
    Item,
    Mapping,
    MqttBroker,
    OpcUaServer,
    Policy,
    Security,
    StreamMapping,
    TimeStampLimits,
    host_of,
)
from gateway.mapping.mqtt_source import MqttSource, TimeForm
from gateway.mapping.node_names import NodeName

_DEFAULT_LIMITS = TimeStampLimits()


def load(path: Path) -> Mapping:
    """Read a mapping file; raises Unknown if there is none, Invalid with all its mistakes."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise Unknown(
            f"there is no mapping {path}", hint="`testbed gateway browse URL` writes a first one"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise Invalid(f"mapping {path} cannot be read: {exc}") from exc
    return read(text, str(path), folder=path.absolute().parent)


def read(text: str, name: str, *, folder: Path = Path()) -> Mapping:
    """Parse the text of a mapping file.

    name: stands for the file in messages.  folder: where the files that it names begin.
    """
    document = yaml_document.parse(
        text, name, holds="mapping file", example="organisation: factory"
    )
    mistakes = list(document.mistakes)
    try:
        form = _File.model_validate(document.value)
    except ValidationError as exc:
        mistakes += document.mistakes_of(exc, _fields_at, _HINTS)
    else:
        mistakes += [(document.key_position(path), sentence) for path, sentence in _misplaced(form)]
    if mistakes:
        raise yaml_document.listed(name, mistakes, document="mapping")
    return _mapping(form, folder)


# --- the file's form -----------------------------------------------------------------------------


def _finite(value: float) -> None:
    if not math.isfinite(value):
        raise Invalid(f"{value} is not finite")


_Id = Annotated[str, validated_by(lambda text: checked_id(text, "id"))]
_SignalName = Annotated[str, validated_by(checked_signal)]
_Unit = Annotated[str, validated_by(checked_unit)]
_Node = Annotated[str, validated_by(node_names.parse)]
_Topic = Annotated[str, validated_by(mqtt_source.checked_topic)]
_Pointer = Annotated[str, validated_by(mqtt_source.pointer)]
_Number = Annotated[float, validated_by(_finite)]
_FileName = Annotated[str, Field(max_length=1_000)]
_Seconds = Annotated[float, Field(gt=0, le=86_400), validated_by(_finite)]
_Limit = Annotated[float, Field(gt=0, le=MOST_LIMIT_S)]


def _words(value: object) -> object:
    """The words of `convert`: a list, or a text with spaces or commas between them."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


_Conversions = Annotated[frozenset[Conversion], BeforeValidator(_words)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Signal(_Strict):
    node: _Node | None = None
    topic: _Topic | None = None
    value: _Pointer | None = None
    time: _Pointer | None = None
    time_format: Annotated[str, validated_by(mqtt_source.checked_time_form)] = TimeForm.ISO8601
    zone: Annotated[str, validated_by(checked_zone)] = "UTC"
    encoding: Annotated[str, validated_by(mqtt_source.checked_encoding)] | None = None
    convert: _Conversions = frozenset()
    dtype: Dtype = Dtype.FLOAT64
    shape: Annotated[list[Annotated[int, Field(ge=1, le=MOST_ELEMENTS)]], Field(max_length=1)] = []
    element: Annotated[int, Field(ge=0, lt=MOST_ELEMENTS)] | None = None
    unit: _Unit = "1"
    low: _Number | None = None
    high: _Number | None = None
    resolution: Annotated[_Number, Field(gt=0)] | None = None
    deadband: Annotated[_Number, Field(ge=0)] = 0.0
    description: Annotated[str, Field(max_length=400)] = ""

    @model_validator(mode="after")
    def _fits_its_dtype(self) -> Self:
        if self.dtype not in {Dtype.FLOAT64, Dtype.INT64}:
            given = {
                "low": self.low,
                "high": self.high,
                "resolution": self.resolution,
                "deadband": self.deadband,
            }
            if wrong := [field for field, number in given.items() if number]:
                raise ValueError(f"a {self.dtype} has no {' and no '.join(wrong)}; leave it out")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self

    @model_validator(mode="after")
    def _fits_its_shape(self) -> Self:
        if self.shape and self.element is not None:
            raise ValueError("shape is of a whole array, and element of one value: write one")
        if self.shape and self.dtype is Dtype.STRING:
            raise ValueError("an array of strings is not supported; write float64, int64 or bool")
        if self.shape and self.deadband:
            raise ValueError("an array has no deadband; leave it out")
        return self


class _Batch(_Strict):
    age_s: Annotated[float, Field(ge=0, le=60)] = 0.0
    values: Annotated[int, Field(ge=1, le=MOST_VALUES)] = 5_000


class _Stream(_Strict):
    signals: Annotated[dict[_SignalName, _Signal], Field(min_length=1, max_length=1_000)]
    trigger: Trigger | None = None
    period_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    publishing_interval_s: _Seconds = 0.5
    sampling_interval_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    max_silence_s: _Seconds = 10.0
    past_limit_s: _Limit = PAST_LIMIT_S
    future_limit_s: _Limit = FUTURE_LIMIT_S
    batch: _Batch = _Batch()
    description: Annotated[str, Field(max_length=400)] = ""


class _Site(_Strict):
    enterprise: str = ""
    site: str = ""
    area: str = ""
    line: str = ""


def _is_opcua_address(url: str) -> None:
    if "@" in url:
        raise Invalid("the user name does not belong in the address: write opcua.user")
    host_of(url)


class _OpcUa(_Strict):
    url: Annotated[str, validated_by(_is_opcua_address)]
    security: Literal["none", "sign-and-encrypt"]
    policy: Policy = Policy.BASIC256_SHA256
    user: Annotated[str, Field(max_length=200)] = ""
    password_file: _FileName = ""
    user_certificate: bool = False
    certificate_host: Annotated[str, Field(max_length=255)] = ""
    timeout_s: _Seconds = 4.0
    items_per_call: Annotated[int, Field(ge=1, le=10_000)] = 500
    items_per_s: Annotated[float, Field(gt=0)] = 100_000.0


class _Mqtt(_Strict):
    url: Annotated[str, validated_by(broker_address.parse)]
    user: Annotated[str, Field(max_length=200)] = ""
    password_file: _FileName = ""
    version: Literal["3.1.1", "5"] = "3.1.1"
    ca: _FileName = ""
    certificate: _FileName = ""
    key: _FileName = ""
    timeout_s: _Seconds = 10.0
    keepalive_s: Annotated[int, Field(ge=2, le=300)] = 4


class _TimeStamps(_Strict):
    ahead_s: _Limit = _DEFAULT_LIMITS.ahead_s
    behind_s: _Limit = _DEFAULT_LIMITS.behind_s
    stalled_s: _Seconds = _DEFAULT_LIMITS.stalled_s


class _File(_Strict):
    organisation: _Id
    equipment: _Id
    kind: EquipmentKind
    opcua: _OpcUa | None = None
    mqtt: _Mqtt | None = None
    streams: Annotated[dict[_Id, _Stream], Field(min_length=1)]
    time_stamps: _TimeStamps = _TimeStamps()
    name: Annotated[str, Field(max_length=200)] = ""
    site: _Site = _Site()
    description: Annotated[str, Field(max_length=400)] = ""


_MQTT_FIELDS = ("topic", "value", "time", "time_format", "zone", "encoding", "convert")
_SECURED = ("policy", "user", "password_file", "user_certificate", "certificate_host")
"""Fields of `opcua` that have no effect without security, or would send a secret in the clear."""

_HINTS = {
    "opcua.security": "write sign-and-encrypt; or none, where the server cannot, and only on a"
    " network of its own"
}
"""Words that the message about a missing field adds."""


def _unsecured(form: _OpcUa) -> Iterator[tuple[yaml_document.Path, str]]:
    """Fields of `opcua` that contradict its security: (path, sentence) each."""
    if form.security == "none":
        for field in (name for name in _SECURED if name in form.model_fields_set):
            reason = "with security none it protects nothing"
            instead = "write security: sign-and-encrypt, or leave it out"
            yield ("opcua", field), f"opcua.{field}: {reason}; {instead}"
    elif form.user and form.user_certificate:
        reason = f"{form.user!r} signs in by a password already; one of both"
        yield ("opcua", "user_certificate"), f"opcua.user_certificate: {reason}"


def _unfit_tls(form: _Mqtt) -> Iterator[tuple[yaml_document.Path, str]]:
    """Fields of `mqtt` that contradict its address: (path, sentence) each."""
    if not broker_address.parse(form.url).is_secure:
        for field in ("ca", "certificate", "key"):
            if getattr(form, field):
                yield ("mqtt", field), f"mqtt.{field}: {form.url} has no TLS; write mqtts or wss"
    elif bool(form.certificate) != bool(form.key):
        field = "certificate" if form.certificate else "key"
        yield ("mqtt", field), f"mqtt.{field}: certificate and key belong together"


def _misplaced(form: _File) -> Iterator[tuple[yaml_document.Path, str]]:
    """Fields that belong to the other protocol, or that the protocol lacks: (path, sentence)."""
    if (form.opcua is None) == (form.mqtt is None):
        yield (), "say where the machine is read: either `opcua` or `mqtt`"
        return
    if form.opcua is not None:
        yield from _unsecured(form.opcua)
    if form.mqtt is not None:
        yield from _unfit_tls(form.mqtt)
    protocol, required = ("opcua", "node") if form.mqtt is None else ("mqtt", "topic")
    foreign = _MQTT_FIELDS if form.mqtt is None else ("node", "element")
    for name, stream in form.streams.items():
        path = ("streams", name)
        if form.mqtt is not None and stream.trigger is Trigger.VALUE:
            yield (*path, "trigger"), f"{name}: over MQTT every message counts; write `timestamp`"
        for signal_name, signal in stream.signals.items():
            at = (*path, "signals", signal_name)
            if getattr(signal, required) is None:
                yield at, f"{'.'.join(at)}.{required}: this field is missing"
            for field in (each for each in foreign if each in signal.model_fields_set):
                yield (*at, field), f"{'.'.join(at)}.{field}: {protocol} knows no such field"


def _fields_at(path: yaml_document.Path) -> list[str]:
    """Names of the fields that may stand at a path of a mapping file."""
    by_depth: AnyMapping[int, type[BaseModel]] = {0: _File, 2: _Stream, 4: _Signal}
    by_name: AnyMapping[str, type[BaseModel]] = {
        "opcua": _OpcUa,
        "mqtt": _Mqtt,
        "site": _Site,
        "batch": _Batch,
        "time_stamps": _TimeStamps,
    }
    form = by_name.get(path[-1]) if path and path[-1] in by_name else by_depth.get(len(path))
    return sorted(form.model_fields) if form else []


# --- from the file's form to the mapping ---------------------------------------------------------


def _mapping(form: _File, folder: Path) -> Mapping:
    equipment = EquipmentAddress(form.organisation, form.equipment)
    trigger = Trigger.TIMESTAMP if form.mqtt else Trigger.VALUE
    return Mapping(
        equipment=equipment,
        name=form.name or form.equipment,
        kind=form.kind,
        site={level: name for level, name in form.site.model_dump().items() if name},
        description=form.description,
        source=_source(form, folder),
        streams=tuple(
            _stream(equipment, name, stream, trigger) for name, stream in form.streams.items()
        ),
        time_stamps=TimeStampLimits(**form.time_stamps.model_dump()),
    )


def _beside(name: str, folder: Path) -> Path | None:
    """The path of a file that the mapping names, None for none."""
    return folder / name if name else None


def _source(form: _File, folder: Path) -> OpcUaServer | MqttBroker:
    if form.mqtt is not None:
        return MqttBroker(
            url=form.mqtt.url,
            user=form.mqtt.user,
            timeout_s=form.mqtt.timeout_s,
            keepalive_s=form.mqtt.keepalive_s,
            password_file=_beside(form.mqtt.password_file, folder),
            version=form.mqtt.version,
            ca=_beside(form.mqtt.ca, folder),
            certificate=_beside(form.mqtt.certificate, folder),
            key=_beside(form.mqtt.key, folder),
        )
    if form.opcua is None:
        raise TypeError("neither opcua nor mqtt")
    return OpcUaServer(
        url=form.opcua.url,
        security=_security(form.opcua, folder),
        timeout_s=form.opcua.timeout_s,
        items_per_call=form.opcua.items_per_call,
        items_per_s=form.opcua.items_per_s,
    )


def _security(form: _OpcUa, folder: Path) -> Security | None:
    if form.security == "none":
        return None
    return Security(
        policy=form.policy,
        user=form.user,
        as_certificate=form.user_certificate,
        host=form.certificate_host or host_of(form.url),
        password_file=_beside(form.password_file, folder),
    )


def _stream(
    equipment: EquipmentAddress, name: str, form: _Stream, default_trigger: Trigger
) -> StreamMapping:
    sources = {signal: _signal_source(fields) for signal, fields in form.signals.items()}
    spec = StreamSpec(
        address=StreamAddress(equipment.organisation, equipment.equipment, name),
        signals=tuple(
            Signal(
                name=signal,
                dtype=fields.dtype,
                unit=fields.unit,
                low=fields.low,
                high=fields.high,
                shape=(fields.shape[0],) if fields.shape else (),
                resolution=fields.resolution,
                description=fields.description,
                node=_place(fields, sources[signal]),
            )
            for signal, fields in form.signals.items()
        ),
        trigger=form.trigger or default_trigger,
        period_s=form.period_s,
        max_silence_s=form.max_silence_s,
        past_limit_s=form.past_limit_s,
        future_limit_s=form.future_limit_s,
        description=form.description,
    )
    return StreamMapping(
        spec=spec,
        items=tuple(
            Item(sources[signal], fields.deadband, fields.element)
            for signal, fields in form.signals.items()
        ),
        publishing_interval_s=form.publishing_interval_s,
        sampling_interval_s=form.sampling_interval_s,
        batch_age_s=form.batch.age_s,
        batch_values=form.batch.values,
    )


def _place(form: _Signal, source: NodeName | MqttSource) -> str:
    """The address of a signal in its source, as its spec says it."""
    place = form.node or str(source)
    return place if form.element is None else f"{place}[{form.element}]"


def _signal_source(form: _Signal) -> NodeName | MqttSource:
    if form.node is not None:
        return node_names.parse(form.node)
    return MqttSource(
        topic=form.topic or "",
        value=None if form.value is None else mqtt_source.pointer(form.value),
        time=None if form.time is None else mqtt_source.pointer(form.time),
        form=mqtt_source.checked_time_form(form.time_format),
        zone=form.zone,
        encoding=form.encoding,
        convert=form.convert,
    )
