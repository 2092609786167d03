"""Hashes of a run's record, and what a testbed can check in it without the samples.  Pure."""

import hashlib
from collections import Counter
from collections.abc import Iterator

import orjson

from broker.clock import ns_of
from broker.errors import Invalid
from broker.responses.run_document import (
    ExpectationOfRun,
    RunDocument,
    SamplesUsed,
    StreamOfRun,
    sha256_of,
)
from broker.runs import verdict

MOST_EVIDENCE = 100_000
"""Samples, gaps and programs that the evidence of a run names, each as often as a figure does."""


def canonical(document: RunDocument) -> bytes:
    """The record as JSON with sorted keys and without spaces, which is what is hashed."""
    return orjson.dumps(document.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)


def sha256(document: RunDocument) -> str:
    """SHA-256 of the record, in hexadecimal digits."""
    return hashlib.sha256(canonical(document)).hexdigest()


def check(document: RunDocument) -> None:
    """Raise Invalid for a record that contradicts itself, with the field that does."""
    for field, sentence in _contradictions(document):
        raise Invalid(
            f"record.{field}: {sentence}",
            hint="hand over the record as `testbed run` wrote it",
        )


def check_hash(field: str, text: str, stated: str) -> None:
    """Raise Invalid unless a text has the SHA-256 that is stated; field: that states it."""
    _raise_unless_equal(field, sha256_of(text), stated)


def check_own_hash(document: RunDocument, stated: str) -> None:
    """Raise Invalid unless the record has the SHA-256 that came with it."""
    _raise_unless_equal("sha256", sha256(document), stated)


def _raise_unless_equal(field: str, computed: str, stated: str) -> None:
    if computed != stated:
        raise Invalid(
            f"{field} = {stated}: the SHA-256 of what came is {computed}",
            hint="it was changed on its way: hand over the record as `testbed run` wrote it",
        )


def _contradictions(document: RunDocument) -> Iterator[tuple[str, str]]:
    """Each field that contradicts another one, with a sentence."""
    scenario = document.scenario
    if sha256_of(scenario.text) != scenario.sha256:
        yield "scenario.sha256", f"the text has {sha256_of(scenario.text)}"
    passed = verdict.passes((each.passed for each in document.expectations), document.incidents)
    if passed != document.passed:
        words = "passed" if passed else "failed"
        yield "passed", f"by its expectations and incidents the run {words}"
    yield from _of_spans(document)
    yield from _twice("streams", [each.name for each in document.streams])
    yield from _twice("resources", [each.prototype for each in document.resources])
    yield from _twice("truth", [each.equipment for each in document.truth])
    for index, stream in enumerate(document.streams):
        yield from _of_stream(f"streams.{index}", stream)
    streams = {each.name: each for each in document.streams}
    equipment = {each.equipment for each in document.truth}
    for index, expectation in enumerate(document.expectations):
        field = f"expectations.{index}"
        yield from _of_expectation(field, expectation)
        if expectation.truth is not None and expectation.truth not in equipment:
            yield f"{field}.truth", f"the record has no truth about {expectation.truth!r}"
        for position, used in enumerate(expectation.samples):
            yield from _of_samples(f"{field}.samples.{position}", used, streams)
    if (parts := _evidence_parts(document, streams)) > MOST_EVIDENCE:
        yield "expectations", f"their evidence has {parts:,} parts, and {MOST_EVIDENCE:,} are most"


def _evidence_parts(document: RunDocument, streams: dict[str, StreamOfRun]) -> int:
    """How much the evidence of a run will name: so that no record makes an answer without end."""
    programs = len(document.code)
    own_figures = 12 + len(document.clock.waited_for) + 3 * len(document.resources)
    parts = (own_figures + len(streams)) * programs
    parts += 6 * sum(1 + len(each.gaps) for each in document.streams)
    for expectation in document.expectations:
        gaps = sum(len(streams[each.stream].gaps) for each in expectation.samples)
        each_figure = 1 + programs + len(expectation.samples) + gaps
        parts += (5 + len(expectation.observed)) * each_figure
    return parts


def _of_spans(document: RunDocument) -> Iterator[tuple[str, str]]:
    clock = document.clock
    instants = {
        ("began", "ended"): (document.began, document.ended),
        ("clock.start", "clock.end"): (clock.start, clock.end),
    }
    for (first, last), (begin, end) in instants.items():
        if _instant(last, end) < _instant(first, begin):
            yield last, f"{end} is before the beginning, {begin}"
    if clock.is_virtual != (clock.speed is None):
        yield "clock.speed", "a run has a wanted speed exactly if it is at wall time"


def _of_stream(field: str, stream: StreamOfRun) -> Iterator[tuple[str, str]]:
    if (stream.first is None) != (stream.last is None) or (stream.first is None) != (
        stream.samples == 0
    ):
        yield f"{field}.first", "a stream has a first and a last instant exactly if it has samples"
    first, last = stream.first, stream.last
    if first is not None and last is not None and _instant(field, last) < _instant(field, first):
        yield f"{field}.last", f"{last} is before the first sample, {first}"
    for index, gap in enumerate(stream.gaps):
        if _instant(field, gap.to) < _instant(field, gap.from_):
            yield f"{field}.gaps.{index}.to", f"{gap.to} is before its beginning, {gap.from_}"


def _of_expectation(field: str, expectation: ExpectationOfRun) -> Iterator[tuple[str, str]]:
    robustness = expectation.robustness or 0.0
    if robustness > 0 and not expectation.passed:
        yield f"{field}.robustness", f"{robustness:g} is above 0, and the expectation failed"
    if robustness < 0 and expectation.passed:
        yield f"{field}.robustness", f"{robustness:g} is below 0, and the expectation passed"
    violation = expectation.violation
    if violation is not None:
        if expectation.passed:
            yield f"{field}.violation", "the expectation passed, and has no violation"
        if _instant(field, violation.to) < _instant(field, violation.from_):
            yield f"{field}.violation.to", f"{violation.to} is before its beginning"


def _of_samples(
    field: str, used: SamplesUsed, streams: dict[str, StreamOfRun]
) -> Iterator[tuple[str, str]]:
    stream = streams.get(used.stream)
    if _instant(field, used.to) < _instant(field, used.from_):
        yield f"{field}.to", f"{used.to} is before its beginning, {used.from_}"
    if stream is None:
        yield f"{field}.stream", f"the record has no stream {used.stream!r}"
    elif used.samples > stream.samples:
        yield f"{field}.samples", f"{used.samples} of the {stream.samples} that {stream.name} has"


def _instant(field: str, text: str) -> int:
    try:
        return ns_of(text)
    except Invalid as exc:
        raise Invalid(f"record.{field}: {exc.message}", hint=exc.hint) from exc


def _twice(field: str, names: list[str]) -> Iterator[tuple[str, str]]:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        yield field, f"{min(repeated)!r} stands twice"
