"""Several runs side by side: what differed in their inputs, and their figures.  Pure."""

from collections.abc import Mapping, Sequence

from broker.responses.run_document import RunDocument, Scalar
from broker.responses.runs import ComparedRow, FigureResponse
from broker.runs import evidence

MOST_RUNS = 10
"""Runs that are compared at once."""


def inputs(documents: Sequence[RunDocument]) -> list[ComparedRow]:
    """The inputs of runs, a row each: first those that differ, each part in the record's order."""
    rows = _rows(
        [{name: (value, "1") for name, value in _inputs_of(each).items()} for each in documents]
    )
    return sorted(rows, key=lambda row: not row.differs)


def figures(documents: Sequence[RunDocument]) -> list[ComparedRow]:
    """The figures of runs, a row each, by the names that they have in the evidence."""
    return _rows([_figures_of(each) for each in documents])


def _inputs_of(document: RunDocument) -> Mapping[str, Scalar]:
    clock = document.clock
    rows: dict[str, Scalar] = {
        "scenario": document.scenario.name,
        "scenario SHA-256": document.scenario.sha256,
        "seed": float(document.seed),
        **document.settings,
        **document.values,
        "time": "virtual" if clock.is_virtual else "wall",
        "quantum": clock.quantum_s,
        "speed": clock.speed,
    }
    rows |= {f"file of {each.equipment}: {each.path}": each.sha256 for each in document.files}
    rows |= {f"code of {each.prototype}: {each.name}": each.sha256 for each in document.code}
    rows |= {f"version of {name}": version for name, version in document.versions.items()}
    return rows | {
        "SHA-256 of all packages": document.lock_sha256,
        "architecture": document.architecture,
    }


def _figures_of(document: RunDocument) -> Mapping[str, tuple[Scalar, str]]:
    items: Sequence[FigureResponse] = evidence.figures(document)
    return {each.name: (each.value, each.unit) for each in items}


def _rows(columns: Sequence[Mapping[str, tuple[Scalar, str]]]) -> list[ComparedRow]:
    """A row for each name that any column has, in the order of their first appearance."""
    rows = []
    for name in dict.fromkeys(name for column in columns for name in column):
        cells = [column.get(name) for column in columns]
        values = [None if cell is None else cell[0] for cell in cells]
        unit = next(cell[1] for cell in cells if cell is not None)
        differs = any(cell != cells[0] for cell in cells)
        rows.append(ComparedRow(name=name, unit=unit, values=values, differs=differs))
    return rows
