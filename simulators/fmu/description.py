"""Reads the model description of an FMU: signals, inputs, parameters, and what runs it.

The text comes from strangers.  It is parsed by expat with every document type refused, which rules
out entities and so XML bombs; FMI needs none.
Source: FMI 2.0.4, 2.2 and 4.3; FMI 3.0.2, 2.4 and 4.
"""

import itertools
import math
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.parsers import expat

from broker.errors import Invalid
from broker.streams import MOST_SIGNALS, MOST_TEXT, Signal, checked_signal
from simulators.fmu import archive, units
from simulators.fmu.archive import DESCRIPTION, FmuArchive
from simulators.fmu.units import UnitDefinition

FLOATS = frozenset({"Real", "Float64", "Float32"})
INTEGERS = frozenset(
    {
        *("Integer", "Enumeration", "Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32"),
        *("Int64", "UInt64"),
    }
)
NUMBERS = FLOATS | INTEGERS | {"Boolean"}
SETTABLE = NUMBERS | {"String"}
TRUE = frozenset({"true", "1"})
MOST_DEPTH = 64
MOST_ELEMENTS = 500_000
_PLATFORMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "2": {"x86_64": ("linux64", "x86_64-linux"), "i686": ("linux32", "x86-linux")},
    "3": {"x86_64": ("x86_64-linux",), "i686": ("x86-linux",)},
}
"""Version -> machine -> folders of binaries that it can load; of others FMI 2 names none."""
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9 _.-]+")
_ENDS = " _.-"


@dataclass(frozen=True, slots=True, kw_only=True)
class FmuVariable:
    """A scalar variable of an FMU.

    name: as the FMU has it.  type: FMI's, such as `Real` or `Float64`.  unit: as the FMU has it.
    """

    name: str
    reference: int
    type: str
    causality: str
    start: str | None = None
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FmuDescription:
    """The parts of a model description that a co-simulation needs.

    path: of the FMU.  version: of FMI, "2" or "3".  outputs, inputs, parameters: those whose values
    are numbers, the last with texts too.  signals: of the outputs, in their order.  left_out: names
    of outputs and inputs that are no scalar numbers.  library: path of the binary in the archive.
    fixed_step_s: the step that the FMU cannot leave, if it says so.
    """

    path: Path
    version: str
    model: str
    identifier: str
    token: str
    library: str
    outputs: tuple[FmuVariable, ...]
    inputs: tuple[FmuVariable, ...]
    parameters: tuple[FmuVariable, ...]
    signals: tuple[Signal, ...]
    input_signals: tuple[Signal, ...]
    left_out: tuple[str, ...]
    step_s: float | None
    fixed_step_s: float | None
    description: str = ""

    @property
    def name(self) -> str:
        """The name of the FMU's file."""
        return self.path.name


@dataclass(slots=True)
class _Element:
    """An XML element, with the line at which it begins."""

    tag: str
    attributes: Mapping[str, str]
    line: int
    children: list["_Element"] = field(default_factory=list)

    def every(self, path: str) -> Iterator["_Element"]:
        """Descendants by a path of tags."""
        tag, _, rest = path.partition("/")
        for child in self.children:
            if child.tag == tag:
                if rest:
                    yield from child.every(rest)
                else:
                    yield child

    def first(self, tag: str) -> "_Element | None":
        """The first child of a tag."""
        return next(self.every(tag), None)


def read(path: Path, machine: str | None = None) -> FmuDescription:
    """Read the description of an FMU, and check that this machine can run it.

    machine: as `platform.machine` names it; this one if None.  Raises Unknown if there is no such
    file, Invalid for an FMU that cannot be read, is of another version or kind, or has no binary
    for the machine.
    """
    if platform.system() != "Linux":
        raise Invalid(f"{path}: FMUs run on Linux alone", hint="run it there, or in a container")
    with archive.opened(path) as fmu:
        root = _parsed(path, fmu.description())
        return _described(fmu, root, machine or platform.machine())


def _parsed(path: Path, text: bytes) -> _Element:
    """The tree of elements; raises Invalid with the line of what is wrong."""
    parser = expat.ParserCreate()
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    top = _Element("", {}, 0)
    stack, numbers = [top], itertools.count(1)

    def begin(tag: str, attributes: dict[str, str]) -> None:
        element = _Element(tag, attributes, parser.CurrentLineNumber)
        if len(stack) > MOST_DEPTH or next(numbers) > MOST_ELEMENTS:
            raise Invalid(
                f"{path}: {DESCRIPTION}:{element.line}: too many elements",
                hint=f"at most {MOST_ELEMENTS:,}, {MOST_DEPTH} in one another",
            )
        stack[-1].children.append(element)
        stack.append(element)

    def refuse(*_: object) -> None:
        raise Invalid(
            f"{path}: {DESCRIPTION}:{parser.CurrentLineNumber}: has a document type",
            hint="FMI needs none, and it could make a small file into a huge one: leave it out",
        )

    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda _: stack.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)  # noqa: FBT003 - expat's `isfinal` has no name
    except (LookupError, ValueError) as exc:  # of codecs
        raise Invalid(f"{path}: {DESCRIPTION}: {exc}", hint="save it in UTF-8") from exc
    except expat.ExpatError as exc:
        raise Invalid(
            f"{path}: {DESCRIPTION}:{exc.lineno}:{exc.offset + 1}: {expat.ErrorString(exc.code)}",
            hint="export the FMU again",
        ) from exc
    return top.children[0]


def _described(fmu: FmuArchive, root: _Element, machine: str) -> FmuDescription:
    path = fmu.path
    version = _version(path, root)
    kind = _co_simulation(path, root)
    identifier = _attribute(path, kind, "modelIdentifier")
    token = _attribute(path, root, "guid" if version == "2" else "instantiationToken")
    variables, left_out = _variables(path, root, version)
    outputs = [each for each in variables if each.causality == "output"]
    inputs = [each for each in variables if each.causality == "input"]
    if not 0 < len(outputs) <= MOST_SIGNALS:
        raise Invalid(
            f"{path} has {len(outputs)} outputs that are scalar numbers",
            hint=f"1 to {MOST_SIGNALS:,}, which become the signals of its stream",
        )
    definitions = _unit_definitions(path, root)
    experiment = root.first("DefaultExperiment")
    return FmuDescription(
        path=path,
        version=version,
        model=root.attributes.get("modelName", identifier),
        identifier=identifier,
        token=token,
        library=_library(fmu, version, identifier, machine),
        outputs=tuple(outputs),
        inputs=tuple(inputs),
        parameters=tuple(each for each in variables if each.causality == "parameter"),
        signals=_signals(path, outputs, definitions),
        input_signals=_signals(path, inputs, definitions),
        left_out=left_out,
        step_s=None if experiment is None else _number(path, experiment, "stepSize"),
        fixed_step_s=_number(path, kind, "fixedInternalStepSize"),
        description=root.attributes.get("description", "")[:MOST_TEXT],
    )


def _co_simulation(path: Path, root: _Element) -> _Element:
    """The element about co-simulation; raises Invalid for an FMU of another kind."""
    kind = root.first("CoSimulation")
    if root.tag != "fmiModelDescription" or kind is None:
        others = [
            each.tag for each in root.children if each.tag.endswith(("Exchange", "Execution"))
        ]
        raise Invalid(
            f"{path} is no FMU for co-simulation; it is for {' and '.join(others) or 'nothing'}",
            hint="export it for co-simulation: it then brings its own solver",
        )
    if kind.attributes.get("needsExecutionTool") in TRUE:
        raise Invalid(
            f"{path} runs only inside the program that exported it",
            hint="export it so that it needs no execution tool",
        )
    return kind


def _version(path: Path, root: _Element) -> str:
    text = root.attributes.get("fmiVersion", "")
    if text == "2.0" or re.fullmatch(r"3\.0(\.\d+)?(-[\w.+-]+)?", text):
        return text[0]
    raise Invalid(
        f"{path} has FMI version {text[:20]!r}", hint="2.0 and 3.0 can be run: export it as one"
    )


def _library(fmu: FmuArchive, version: str, identifier: str, machine: str) -> str:
    """Path of the binary for this machine in the archive."""
    folders = _PLATFORMS[version].get(machine, (f"{machine}-linux",))
    for folder in folders:
        library = f"binaries/{folder}/{identifier}.so"
        if library in fmu.names:
            return library
    paths = (PurePosixPath(name).parts for name in fmu.names)
    present = sorted({parts[1] for parts in paths if parts[0] == "binaries" and len(parts) > 2})
    raise Invalid(
        f"{fmu.path} has binaries for {', '.join(present)[:200] or 'no platform'};"
        f" this machine needs binaries/{folders[0]}/{identifier}.so",
        hint=f"export it on Linux, {machine}, or run it on a machine that it has a binary for",
    )


def _variables(
    path: Path, root: _Element, version: str
) -> tuple[list[FmuVariable], tuple[str, ...]]:
    """All scalar variables that can be read or set, and names of outputs and inputs that cannot."""
    elements = [
        each
        for group in root.every("ModelVariables")
        for each in group.children
        if version == "3" or each.tag == "ScalarVariable"
    ]
    types = _types(root)
    usable, left_out = [], []
    for element in elements:
        variable = _variable(path, element, types)
        is_scalar = element.first("Dimension") is None
        accepted = SETTABLE if variable.causality == "parameter" else NUMBERS
        if is_scalar and variable.type in accepted:
            usable.append(variable)
        elif variable.causality in {"input", "output"}:
            left_out.append(variable.name)
    return usable, tuple(left_out)


def _variable(path: Path, element: _Element, types: Mapping[str, _Element]) -> FmuVariable:
    """A variable; in FMI 2 its type is a child element, in FMI 3 the element itself."""
    typed = next(iter(element.children), element) if element.tag == "ScalarVariable" else element
    declared = types.get(typed.attributes.get("declaredType", ""), typed)

    def of_type(name: str) -> str | None:
        return typed.attributes.get(name, declared.attributes.get(name))

    start = typed.attributes.get("start")
    if typed.tag == "String" and (child := typed.first("Start")) is not None:
        start = child.attributes.get("value")
    reference = _attribute(path, element, "valueReference")
    if not (reference.isascii() and reference.isdigit() and int(reference) < 1 << 32):
        raise _wrong(path, element, f"valueReference is {reference[:40]!r}")
    low, high = (_float(path, typed, name, of_type(name)) for name in ("min", "max"))
    return FmuVariable(
        name=_attribute(path, element, "name"),
        reference=int(reference),
        type=typed.tag,
        causality=element.attributes.get("causality", "local"),
        start=start,
        unit=of_type("unit"),
        low=low,
        high=high,
        description=element.attributes.get("description", ""),
    )


def _types(root: _Element) -> dict[str, _Element]:
    """Named types: in FMI 2 a child of `SimpleType` has the attributes, in FMI 3 the element."""
    types = {}
    for group in root.every("TypeDefinitions"):
        for element in group.children:
            typed = (
                element.children[0] if element.tag == "SimpleType" and element.children else None
            )
            types[element.attributes.get("name", "")] = typed or element
    return types


def _unit_definitions(path: Path, root: _Element) -> dict[str, UnitDefinition]:
    definitions = {}
    for element in root.every("UnitDefinitions/Unit"):
        base = element.first("BaseUnit")
        if base is None:
            continue
        numbers = {name: _number(path, base, name) or 0.0 for name in base.attributes}
        factor, offset = numbers.pop("factor", 1.0), numbers.pop("offset", 0.0)
        exponents = {name: int(number) for name, number in numbers.items()}
        definitions[element.attributes.get("name", "")] = UnitDefinition(exponents, factor, offset)
    return definitions


def _signals(
    path: Path, variables: Sequence[FmuVariable], definitions: Mapping[str, UnitDefinition]
) -> tuple[Signal, ...]:
    """A signal for each variable, under a name that a stream may have."""
    names = [_signal_name(each.name) for each in variables]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        both = [each.name for each, name in zip(variables, names, strict=True) if name == twice[0]]
        raise Invalid(
            f"{path}: the variables {' and '.join(both)} would both be the signal {twice[0]!r}",
            hint="give one of them another name",
        )
    return tuple(
        _signal(name, each, definitions) for name, each in zip(names, variables, strict=True)
    )


def _signal_name(name: str) -> str:
    """The variable's name with `_` for what a signal's name may not have, at most 64 characters."""
    return checked_signal(_NOT_ALLOWED.sub("_", name).strip(_ENDS)[:64].strip(_ENDS) or "x")


def _signal(name: str, variable: FmuVariable, definitions: Mapping[str, UnitDefinition]) -> Signal:
    """A signal of 64-bit floats, whatever the variable's type: other machines' rows are so too."""
    unit = units.ucum(variable.unit, definitions)
    note = "" if unit is not None else f" [unit of the FMU: {variable.unit}]"
    low, high = variable.low, variable.high
    if variable.type == "Boolean":
        low, high = 0.0, 1.0
    if low is not None and high is not None and low >= high:
        low = high = None
    return Signal(
        name,
        unit=unit or units.NONE,
        low=low,
        high=high,
        resolution=None if variable.type in FLOATS else 1.0,
        description=(variable.description[: MOST_TEXT - len(note[:100])] + note[:100]).strip(),
    )


def _attribute(path: Path, element: _Element, name: str) -> str:
    try:
        return element.attributes[name]
    except KeyError as exc:
        raise _wrong(path, element, f"{element.tag} has no {name}") from exc


def _number(path: Path, element: _Element, name: str) -> float | None:
    return _float(path, element, name, element.attributes.get(name))


def _float(path: Path, element: _Element, name: str, text: str | None) -> float | None:
    """A finite number of an attribute, None where there is none or it is infinite."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError as exc:
        raise _wrong(path, element, f"{name} is {text[:40]!r}, no number") from exc
    return number if math.isfinite(number) else None


def _wrong(path: Path, element: _Element, sentence: str) -> Invalid:
    return Invalid(f"{path}: {DESCRIPTION}:{element.line}: {sentence}", hint="export the FMU again")
