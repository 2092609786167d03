"""The mapping: one YAML file that says what of a machine becomes which stream.

Reading it finds every mistake, not only the first; each names the line, the field, the value and
what would be right.
"""

import difflib
import math
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker.batch import MOST_VALUES, EquipmentKind
from broker.errors import Invalid, Unknown
from broker.namespace import EquipmentAddress, StreamAddress, checked_id
from broker.pydantic_checks import validated_by
from broker.settings import address_of
from broker.streams import Dtype, Signal, StreamSpec, Trigger, checked_signal
from broker.units import checked_unit
from gateway.links.mqtt import payloads
from gateway.links.mqtt.payloads import Reading, TimeForm
from gateway.mapping import node_names
from gateway.mapping.node_names import NodeName


@dataclass(frozen=True, slots=True)
class Item:
    """One signal's source: where it is read, and how far it must move to count."""

    source: NodeName | Reading
    deadband: float = 0.0


@dataclass(frozen=True, slots=True)
class StreamMapping:
    """One stream: its spec, unnumbered yet, and where each of its signals comes from.

    batch_age_s: how long samples may wait for others; 0 sends what one publish brought.
    """

    spec: StreamSpec
    items: tuple[Item, ...]
    publishing_interval_s: float
    batch_age_s: float
    batch_values: int


class Policy(StrEnum):
    """How a session is signed and encrypted; OPC UA Part 7, as far as it is not outdated."""

    BASIC256_SHA256 = "Basic256Sha256"
    AES256_SHA256_RSA_PSS = "Aes256Sha256RsaPss"


@dataclass(frozen=True, slots=True)
class Security:
    """A session that is signed and encrypted, with this policy and no other.

    user: who signs in, by a password; empty for nobody.  as_certificate: the gateway's own
    certificate signs in.  host: the one that the server's certificate must be made for.
    """

    policy: Policy
    user: str
    as_certificate: bool
    host: str


@dataclass(frozen=True, slots=True)
class Server:
    """The OPC UA server, and what may be asked of it.

    security: None only where the mapping says `none`.  items_per_call: nodes in one request;
    items_per_s: samples a second the server may be asked for.
    """

    url: str
    security: Security | None
    timeout_s: float
    items_per_call: int
    items_per_s: float


@dataclass(frozen=True, slots=True)
class Broker:
    """The MQTT broker that sensors publish to.

    user: empty where it asks for none.  keepalive_s: after so long a silence it is asked for life,
    and given up after twice as long.
    """

    url: str
    user: str
    timeout_s: float
    keepalive_s: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """What one gateway does: one equipment, where it is read, its streams."""

    equipment: EquipmentAddress
    name: str
    kind: EquipmentKind
    site: AnyMapping[str, str]
    description: str
    source: Server | Broker
    streams: tuple[StreamMapping, ...]

    @property
    def server(self) -> Server:
        """The OPC UA server; whoever asks knows that it is one."""
        if not isinstance(self.source, Server):
            raise TypeError(f"{self.equipment} is read over MQTT")
        return self.source

    @property
    def nodes(self) -> list[NodeName]:
        """The OPC UA node of each signal, stream by stream."""
        every = (item.source for one in self.streams for item in one.items)
        return [source for source in every if not isinstance(source, Reading)]

    @property
    def asked_per_s(self) -> float:
        """Samples a second that the server is asked for, as far as periods are given."""
        periods = [(len(one.items), one.spec.period_s) for one in self.streams]
        return sum(items / period_s for items, period_s in periods if period_s)


def host_of(url: str) -> str:
    """The host of `opc.tcp://host:port`; raises Invalid."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise Invalid(f"{url!r} is no URL: {exc}; write opc.tcp://host:port") from exc
    if parts.scheme != "opc.tcp" or not parts.hostname or not port:
        raise Invalid(f"{url!r} is not the address of a server: write opc.tcp://host:port")
    return parts.hostname


def load(path: Path) -> Mapping:
    """Read a mapping file; raises Unknown if there is none, Invalid with all mistakes in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise Unknown(
            f"there is no mapping {path}", hint="`testbed gateway browse URL` writes a first one"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise Invalid(f"mapping {path} cannot be read: {exc}") from exc
    return read(text, str(path))


def read(text: str, name: str) -> Mapping:
    """Read a mapping's text; `name` stands for the file in messages."""
    raw, places, mistakes = _plain(text, name)
    try:
        model = _File.model_validate(raw)
    except ValidationError as exc:
        mistakes += [_sentence(one, places) for one in exc.errors()]
    else:
        mistakes += [(places[path], what) for path, what in _misplaced(model)]
    if mistakes:
        lines = "\n".join(f"  {name}:{line}: {what}" for line, what in sorted(set(mistakes)))
        count = f"{len(set(mistakes))} mistake{'s' if len(set(mistakes)) > 1 else ''}"
        raise Invalid(f"{count} in the mapping:\n{lines}")
    return _mapping(model)


# --- the file's form -----------------------------------------------------------------------------


def _finite(value: float) -> None:
    if not math.isfinite(value):
        raise Invalid(f"{value} is not finite")


_Id = Annotated[str, validated_by(lambda text: checked_id(text, "id"))]
_SignalName = Annotated[str, validated_by(checked_signal)]
_Unit = Annotated[str, validated_by(checked_unit)]
_Node = Annotated[str, validated_by(node_names.parse)]
_Topic = Annotated[str, validated_by(payloads.checked_topic)]
_Pointer = Annotated[str, validated_by(payloads.pointer)]
_Number = Annotated[float, validated_by(_finite)]
_Seconds = Annotated[float, Field(gt=0, le=86_400), validated_by(_finite)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Signal(_Strict):
    node: _Node | None = None
    topic: _Topic | None = None
    value: _Pointer | None = None
    time: _Pointer | None = None
    time_format: TimeForm = TimeForm.ISO8601
    dtype: Dtype = Dtype.FLOAT64
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
            if wrong := [what for what, number in given.items() if number]:
                raise ValueError(f"a {self.dtype} has no {' and no '.join(wrong)}; leave it out")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self


class _Batch(_Strict):
    age_s: Annotated[float, Field(ge=0, le=60)] = 0.0
    values: Annotated[int, Field(ge=1, le=MOST_VALUES)] = 5_000


class _Stream(_Strict):
    signals: Annotated[dict[_SignalName, _Signal], Field(min_length=1, max_length=1_000)]
    trigger: Trigger | None = None
    period_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    publishing_interval_s: _Seconds = 0.5
    max_silence_s: _Seconds = 10.0
    batch: _Batch = _Batch()
    description: Annotated[str, Field(max_length=400)] = ""


class _Site(_Strict):
    enterprise: str = ""
    site: str = ""
    area: str = ""
    line: str = ""


def _is_opcua_address(url: str) -> None:
    if "@" in url:
        raise Invalid("who signs in does not stand in the address: write opcua.user")
    host_of(url)


class _OpcUa(_Strict):
    url: Annotated[str, Field(pattern=r"^opc\.tcp://[^/\s]+"), validated_by(_is_opcua_address)]
    security: Literal["none", "sign-and-encrypt"]
    policy: Policy = Policy.BASIC256_SHA256
    user: Annotated[str, Field(max_length=200)] = ""
    user_certificate: bool = False
    certificate_host: Annotated[str, Field(max_length=255)] = ""
    timeout_s: _Seconds = 4.0
    items_per_call: Annotated[int, Field(ge=1, le=10_000)] = 500
    items_per_s: Annotated[float, Field(gt=0)] = 100_000.0


class _Mqtt(_Strict):
    url: Annotated[str, Field(pattern=r"^mqtt://[^/@\s]+$"), validated_by(address_of)]
    user: Annotated[str, Field(max_length=200)] = ""
    timeout_s: _Seconds = 10.0
    keepalive_s: Annotated[int, Field(ge=2, le=300)] = 4


class _File(_Strict):
    organisation: _Id
    equipment: _Id
    kind: EquipmentKind
    opcua: _OpcUa | None = None
    mqtt: _Mqtt | None = None
    streams: Annotated[dict[_Id, _Stream], Field(min_length=1)]
    name: Annotated[str, Field(max_length=200)] = ""
    site: _Site = _Site()
    description: Annotated[str, Field(max_length=400)] = ""


_SECURED = ("policy", "user", "user_certificate", "certificate_host")
"""Fields of `opcua` that mean nothing without security, or would tell a secret to anybody."""

_WHAT_TO_WRITE = {
    "opcua.security": "write sign-and-encrypt; or none, where the server cannot, and only on a"
    " network of its own"
}
"""What a field that is missing may be."""


def _unsecured(model: _OpcUa) -> Iterator[tuple[tuple[str, ...], str]]:
    """What does not go with the security that a server is read with."""
    if model.security == "none":
        for field in (one for one in _SECURED if one in model.model_fields_set):
            what = "with security none it protects nothing"
            instead = "write security: sign-and-encrypt, or leave it out"
            yield ("opcua", field), f"opcua.{field}: {what}; {instead}"
    elif model.user and model.user_certificate:
        what = f"{model.user!r} signs in by a password already; one of both"
        yield ("opcua", "user_certificate"), f"opcua.user_certificate: {what}"


def _misplaced(model: _File) -> Iterator[tuple[tuple[str, ...], str]]:
    """What does not go with the way the machine is read: (path, sentence)."""
    if (model.opcua is None) == (model.mqtt is None):
        yield (), "say where the machine is read: either `opcua` or `mqtt`"
        return
    if model.opcua is not None:
        yield from _unsecured(model.opcua)
    here, wanted = ("opcua", "node") if model.mqtt is None else ("mqtt", "topic")
    foreign = ("topic", "value", "time", "time_format") if model.mqtt is None else ("node",)
    for name, stream in model.streams.items():
        path = ("streams", name)
        if model.mqtt is not None and stream.trigger is Trigger.VALUE:
            yield (*path, "trigger"), f"{name}: over MQTT every message counts; write `timestamp`"
        for signal, one in stream.signals.items():
            at = (*path, "signals", signal)
            if getattr(one, wanted) is None:
                yield at, f"{'.'.join(at)}.{wanted}: this field is missing"
            for field in (each for each in foreign if each in one.model_fields_set):
                yield (*at, field), f"{'.'.join(at)}.{field}: {here} knows no such field"


def _source(model: _File) -> Server | Broker:
    if model.mqtt is not None:
        one = model.mqtt
        return Broker(one.url, one.user, one.timeout_s, one.keepalive_s)
    if model.opcua is None:
        raise TypeError("neither opcua nor mqtt")
    server = model.opcua
    security = None
    if server.security != "none":
        host = server.certificate_host or host_of(server.url)
        security = Security(server.policy, server.user, server.user_certificate, host)
    return Server(server.url, security, server.timeout_s, server.items_per_call, server.items_per_s)


def _reading(one: _Signal) -> NodeName | Reading:
    if one.node is not None:
        return node_names.parse(one.node)
    return Reading(
        one.topic or "",
        None if one.value is None else payloads.pointer(one.value),
        None if one.time is None else payloads.pointer(one.time),
        one.time_format,
    )


def _mapping(model: _File) -> Mapping:
    equipment = EquipmentAddress(model.organisation, model.equipment)
    return Mapping(
        equipment=equipment,
        name=model.name or model.equipment,
        kind=model.kind,
        site={level: name for level, name in model.site.model_dump().items() if name},
        description=model.description,
        source=_source(model),
        streams=tuple(
            _stream(equipment, name, one, Trigger.TIMESTAMP if model.mqtt else Trigger.VALUE)
            for name, one in model.streams.items()
        ),
    )


def _stream(
    equipment: EquipmentAddress, name: str, model: _Stream, trigger: Trigger
) -> StreamMapping:
    """trigger: where the stream names none."""
    sources = {signal: _reading(one) for signal, one in model.signals.items()}
    spec = StreamSpec(
        address=StreamAddress(equipment.organisation, equipment.equipment, name),
        signals=tuple(
            Signal(
                name=signal,
                dtype=one.dtype,
                unit=one.unit,
                low=one.low,
                high=one.high,
                resolution=one.resolution,
                description=one.description,
                node=one.node or str(sources[signal]),
            )
            for signal, one in model.signals.items()
        ),
        trigger=model.trigger or trigger,
        period_s=model.period_s,
        max_silence_s=model.max_silence_s,
        description=model.description,
    )
    return StreamMapping(
        spec=spec,
        items=tuple(Item(sources[name], one.deadband) for name, one in model.signals.items()),
        publishing_interval_s=model.publishing_interval_s,
        batch_age_s=model.batch.age_s,
        batch_values=model.batch.values,
    )


# --- from YAML, remembering lines ----------------------------------------------------------------

_Places = dict[tuple[str, ...], int]


def _plain(text: str, name: str) -> tuple[Any, _Places, list[tuple[int, str]]]:
    """The file as plain values, the line of each field, and what is no plain YAML."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise Invalid(f"{name}:{line}: this is not YAML: {exc.problem}") from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise Invalid(f"{name}: this is not YAML: {exc}") from exc
    if not isinstance(root, yaml.MappingNode):
        raise Invalid(
            f"{name}:1: a mapping file holds fields", hint="such as organisation: factory"
        )
    reading = _Reading()
    return reading.value(root, (), 1), reading.places, reading.mistakes


class _Reading:
    """One walk over a YAML tree.  An alias is refused: it may hold itself."""

    def __init__(self) -> None:
        self.places: _Places = {(): 1}
        self.mistakes: list[tuple[int, str]] = []
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, path: tuple[str, ...], line: int) -> Any:
        self.places[path] = line
        if id(node) in self._seen:
            self.mistakes.append(
                (line, f"{'.'.join(path)}: an alias is not allowed here; write it out")
            )
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._fields(node, path)
        if isinstance(node, yaml.SequenceNode):
            rows = enumerate(node.value)
            return [self.value(one, (*path, str(at)), one.start_mark.line + 1) for at, one in rows]
        return _scalar(node)

    def _fields(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.mistakes.append(
                    (line, f"{'.'.join(path)}: a field's name must be a plain text")
                )
                continue
            inner = (*path, key.value)
            if key.value in found:
                first = self.places[inner]
                self.mistakes.append(
                    (line, f"{'.'.join(inner)}: it stands twice; the first is on line {first}")
                )
                continue
            found[key.value] = self.value(value, inner, line)
        return found


def _scalar(node: yaml.Node) -> Any:
    """A scalar as it was written, so that `on` and `1e3` are not what YAML 1.1 makes of them."""
    if node.tag == "tag:yaml.org,2002:null":
        return None
    return node.value


def _sentence(error: Any, places: _Places) -> tuple[int, str]:
    """One mistake of pydantic's as (line, sentence)."""
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    line = next(places[path[:cut]] for cut in range(len(path), -1, -1) if path[:cut] in places)
    field = ".".join(path)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _known(path[:-1]), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_known(path[:-1]))}"
        return line, f"{field}: there is no such field; {hint}"
    if error["type"] == "missing":
        known = _WHAT_TO_WRITE.get(field)
        return line, f"{field}: this field is missing{f'; {known}' if known else ''}"
    said = error["msg"].removeprefix("Value error, ")
    given = (
        ""
        if isinstance(error["input"], dict | BaseModel)
        else f" (it is {str(error['input'])[:80]!r})"
    )
    return line, f"{field}: {said}{'' if repr(error['input']) in said else given}"


def _known(path: Sequence[str]) -> list[str]:
    """The fields that may stand at a path."""
    forms: AnyMapping[int, type[BaseModel]] = {0: _File, 2: _Stream, 4: _Signal}
    named: AnyMapping[str, type[BaseModel]] = {
        "opcua": _OpcUa,
        "mqtt": _Mqtt,
        "site": _Site,
        "batch": _Batch,
    }
    form = named.get(path[-1]) if path and path[-1] in named else forms.get(len(path))
    return sorted(form.model_fields) if form else []
