"""Reads a mapping's OPC UA server for some seconds, with the link that `run` uses, and judges it.

What would end or starve the gateway is found before it runs: what the server refuses, polls, or
publishes too seldom, and source times far from their arrival.
"""

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from broker.batch import BAD
from broker.clock import NS_PER_S, Clock
from broker.errors import Refused
from broker.streams import Trigger
from gateway.commissioning import findings
from gateway.commissioning.checked_signal import CheckedSignal
from gateway.commissioning.findings import Finding
from gateway.commissioning.opcua_measure import MeasuringSink
from gateway.links.opcua import link as opcua_link
from gateway.links.opcua import revised_parameters, sample_census
from gateway.links.opcua.acquisition import Acquisition, SignalRead, ValueRead
from gateway.links.opcua.link import OpcUaLink
from gateway.links.opcua.security import ClientCredentials
from gateway.links.opcua.types import DTYPES, value_of
from gateway.links.opcua.unread_signals import Signal
from gateway.links.values import Unfit
from gateway.mapping.model import Mapping
from gateway.samples import StreamSamples

LEAST_S, MOST_S = 3.0, 10.0
PERIODS = 6
"""Periods that a trial lasts, within its bounds."""
LOOKS = 8
LOOKED_SHARE = 1 / 3
"""Values are read some times in the first third, to see how often they change; then nothing is
read, since some servers publish what somebody reads."""
MOST_LOOKED_AT = 200
LEAST_CHANGES = 3
"""Changes that the looks must see before missing samples are a finding."""
NOTABLE_S = 60.0
"""Source times that lie further from their arrival are a finding."""
MOST_NAMED = 5
NO_RIGHT = "leave it out, or ask the server's owner for the right to read it"
WAITING = "BadWaitingForInitialData"


@dataclass(slots=True)
class SignalTrial:
    """The samples of one signal in a trial.

    samples, bad: all, and those without a value.  since_first: samples after the server's last
    value before the subscription.  behind_s: of these, arrival minus source time.  looks: values
    that were read beside the subscription.  at_quiet: `since_first` when
    these reads ended.
    """

    samples: int = 0
    bad: int = 0
    since_first: int = 0
    value: Any = None
    behind_s: list[float] = field(default_factory=list)
    looks: list[ValueRead] = field(default_factory=list)
    at_quiet: int = 0

    @property
    def refused(self) -> str:
        """The bad status with which it was read last; empty while the server waits for a value."""
        bad = self.looks[-1].bad if self.looks else ""
        return "" if bad == WAITING else bad

    @property
    def changes(self) -> int:
        """Changes from one look to the next."""
        return sum(a != b for a, b in zip(self.looks, self.looks[1:], strict=False))


class TrialSink(MeasuringSink):
    """The sink of a link that is tried; see `gateway.links.port`."""

    def __init__(self, clock: Clock) -> None:
        """clock: of the arrival."""
        super().__init__()
        self.trials: dict[Signal, SignalTrial] = defaultdict(SignalTrial)
        self._clock = clock

    async def take(self, parts: Sequence[StreamSamples]) -> None:
        """Note samples."""
        now_ns = self._clock.now_ns()
        for part in parts:
            columns = (part.samples.signal, part.samples.time_ns, part.samples.quality)
            rows = zip(*(column.tolist() for column in columns), part.samples.values, strict=True)
            for signal, time_ns, quality, value in rows:
                trial = self.trials[part.stream, signal]
                trial.samples += 1
                trial.bad += quality == BAD
                trial.value = None if quality == BAD else _plain(value)
                if not part.fresh:
                    trial.since_first += 1
                    trial.behind_s.append((now_ns - time_ns) / NS_PER_S)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, tuple):
        return list(value)
    return value.item() if hasattr(value, "item") else value


class ServerTrial:
    """The trial of one mapping: the link has read its server for some seconds."""

    def __init__(
        self, mapping: Mapping, credentials: ClientCredentials | None, clock: Clock
    ) -> None:
        self.lasted_s = 0.0
        self._looked_s = 0.0
        self._mapping = mapping
        self._clock = clock
        self._sink = TrialSink(clock)
        self._link = OpcUaLink(mapping, self._sink, clock, credentials)
        self._refusal = ""

    async def read(self, seconds: float) -> None:
        """Read the server for so many seconds, which begin when it has answered."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._run(), name="trial")
            try:
                async with asyncio.timeout(seconds + 3 * self._mapping.server.timeout_s):
                    while not self._link.is_reading and not reading.done():
                        await self._clock.sleep(0.05)
                    began_ns = self._clock.monotonic_ns()
                    for _ in range(LOOKS):
                        await self._look()
                        await self._clock.sleep(seconds * LOOKED_SHARE / LOOKS)
                    self._looked_s = (self._clock.monotonic_ns() - began_ns) / NS_PER_S
                    for trial in self._sink.trials.values():
                        trial.at_quiet = trial.since_first
                    await self._clock.sleep(seconds * (1 - LOOKED_SHARE))
                    self.lasted_s = (self._clock.monotonic_ns() - began_ns) / NS_PER_S
            except TimeoutError:
                pass  # what came until now is judged
            self._acquisition: Acquisition | None = self._link.acquisition
            reading.cancel()

    async def _run(self) -> None:
        try:
            await self._link.run()
        except Refused as exc:
            self._refusal = str(exc)

    async def _look(self) -> None:
        """Read values once, beside what the server publishes; a break is the link's to tell."""
        if self._link.acquisition is None:
            return
        with suppress(*opcua_link.BREAKS):
            states = await self._link.acquisition.read_now(MOST_LOOKED_AT)
            for signal, state in states.items():
                self._sink.trials[signal].looks.append(state)

    # --- findings --------------------------------------------------------------------------------

    def findings(self, known: frozenset[Signal] = frozenset()) -> Iterator[Finding]:
        """The findings of the trial.  known: signals of which an error was found before."""
        if self._refusal:
            yield findings.error(self._refusal)
            return
        alarms = self._sink.alarms
        if "server" in alarms:
            yield findings.error(alarms["server"])
        yield from self._limits()
        yield from self._polled()
        for signal in self._signals():
            if signal not in known:
                yield from self._signal(signal)
        yield from self._revised()
        yield from self._clocks()

    def _signals(self) -> Iterator[Signal]:
        for index, stream in enumerate(self._mapping.streams):
            for signal in range(len(stream.spec.names)):
                yield index, signal

    def _name(self, signal: Signal) -> str:
        spec = self._mapping.streams[signal[0]].spec
        return f"{spec.address.stream}.{spec.names[signal[1]]}"

    def _limits(self) -> Iterator[Finding]:
        """Requests that are smaller than the mapping says."""
        ours, limits = self._mapping.server.items_per_call, self._link.limits
        sizes = {service: limits.size(service) for service in limits.refused}
        if sizes and min(sizes.values()) < ours:
            named = ", ".join(f"{size} in a {service}" for service, size in sorted(sizes.items()))
            yield findings.warning(
                f"the server refuses {ours} nodes in a request, and takes {named}: the gateway"
                f" finds that out at each start; write items_per_call: {min(sizes.values())}"
            )

    def _polled(self) -> Iterator[Finding]:
        """The signals that the server does not publish, by its reason."""
        by_reason: dict[tuple[str, float], list[str]] = defaultdict(list)
        taken = 0
        for signal, read in self._reads().items():
            taken += read.is_published
            if read.polled_s:
                by_reason[read.refused, read.polled_s].append(self._name(signal))
        for (reason, polled_s), names in by_reason.items():
            yield findings.note(
                f"the server publishes {taken} signals and refuses {_listed(names)} ({reason}):"
                f" polled every {polled_s:g} s, and values in between are not seen; write"
                " sampling_interval_s for another interval"
            )

    def _reads(self) -> dict[Signal, SignalRead]:
        return {} if self._acquisition is None else self._acquisition.reads()

    def _signal(self, signal: Signal) -> Iterator[Finding]:
        """Whether a signal is read, has values, and as many as its period says."""
        index, number = signal
        stream, trial, name = (
            self._mapping.streams[index],
            self._sink.trials[signal],
            self._name(signal),
        )
        alarm = self._sink.alarms.get(f"{index}/{stream.spec.names[number]}")
        if alarm is not None and trial.samples in (0, trial.bad):
            yield findings.error(f"{name}: {alarm}{self._cure(signal, trial)}")
        elif trial.samples == trial.bad and trial.refused:
            yield findings.error(
                f"{name}: it has no value, and to read it the server says {trial.refused}:"
                f" {NO_RIGHT}"
            )
        elif trial.samples == trial.bad:
            yield findings.warning(
                f"{name}: it has no value now, so nothing or a bad sample is stored: look at the"
                " machine, or leave it out"
            )
        elif alarm is not None or trial.bad:
            yield findings.warning(f"{name}: {alarm or 'some of its samples are bad'}")
        yield from self._rate(name, signal, trial)

    def _cure(self, signal: Signal, trial: SignalTrial) -> str:
        """The line of the mapping with which the values would fit; empty if there is none."""
        if not trial.looks or trial.looks[-1].bad:
            return f"; {NO_RIGHT}"
        stream, value = self._mapping.streams[signal[0]], trial.looks[-1].value
        own = stream.spec.signals[signal[1]]
        for dtype in dict.fromkeys(DTYPES.values()):
            with suppress(Unfit):
                if dtype is not own.dtype and not own.shape:
                    value_of(value, dtype)
                    return f"; write dtype: {dtype}"
        return ""

    def _rate(self, name: str, signal: Signal, trial: SignalTrial) -> Iterator[Finding]:
        """Whether fewer samples came than are due, or than the value changed.

        A value that nobody writes brings no sample, and none is due.
        """
        spec = self._mapping.streams[signal[0]].spec
        changes_per_s = trial.changes / self._looked_s if self._looked_s else 0.0
        quiet = trial.since_first - trial.at_quiet
        is_due = spec.trigger is Trigger.TIMESTAMP and bool(trial.since_first or trial.changes)
        count = trial.since_first + 1
        if trial.changes >= LEAST_CHANGES and quiet < changes_per_s * self._quiet_s / 2:
            interval_s = spec.period_s / 2 or 1 / (2 * changes_per_s)
            yield findings.warning(
                f"{name}: {quiet} samples came in {self._quiet_s:.1f} s, while it changes"
                f" {changes_per_s:.2g} times a second: the server does not notice; write"
                f" sampling_interval_s: {interval_s:.2g}"
            )
        elif is_due and sample_census.are_too_few(count, self.lasted_s, spec.period_s):
            yield findings.warning(
                f"{name}: {trial.since_first} samples came in {self.lasted_s:.1f} s, and period_s:"
                f" {spec.period_s:g} says {self.lasted_s / spec.period_s:.0f}: is the machine"
                " running? else write its right period_s"
            )

    def _revised(self) -> Iterator[Finding]:
        """Queues, sampling and triggers that the server revised for the worse."""
        if self._acquisition is None:
            return
        streams, subscriptions = self._mapping.streams, self._acquisition.subscriptions
        for judge in (
            revised_parameters.short_queues,
            revised_parameters.slow_samples,
            revised_parameters.no_filters,
        ):
            judged = list(judge(streams, subscriptions))
            for *_, sentence in judged[:1]:
                others = f" (and {len(judged) - 1} others likewise)" if len(judged) > 1 else ""
                yield findings.warning(f"{sentence}{others}")

    def _clocks(self) -> Iterator[Finding]:
        """Source times that lie far from their arrival, a sentence a stream."""
        for index, stream in enumerate(self._mapping.streams):
            behind_s = [
                each
                for signal, trial in self._sink.trials.items()
                if signal[0] == index
                for each in trial.behind_s
            ]
            median_s = statistics.median(behind_s) if behind_s else 0.0
            if abs(median_s) <= NOTABLE_S:
                continue
            side, limit = ("behind", "past_limit_s")
            if median_s < 0:
                side, limit = ("ahead of", "future_limit_s")
            name, most_s = stream.spec.address.stream, getattr(stream.spec, limit)
            distance = f"{_duration(abs(median_s))} {side} this computer's clock"
            sentence = f"{name}: its source times are {distance}"
            if abs(median_s) > most_s:
                yield findings.error(
                    f"{sentence}, and further than {limit}: {most_s:g} is not stored: set the"
                    f" server's clock, or write {limit}: {abs(median_s) * 2:.0f}"
                )
            else:
                yield findings.warning(f"{sentence}: set the server's clock")

    @property
    def _quiet_s(self) -> float:
        return self.lasted_s - self._looked_s

    # --- signals ---------------------------------------------------------------------------------

    def signals(self) -> list[CheckedSignal]:
        """Each signal with its value, its rate and its way, in the order of the mapping."""
        reads = self._reads()
        return [self._checked(signal, reads.get(signal)) for signal in self._signals()]

    def _checked(self, signal: Signal, read: SignalRead | None) -> CheckedSignal:
        trial = self._sink.trials[signal]
        spec = self._mapping.streams[signal[0]].spec.signals[signal[1]]
        behind_s = round(statistics.median(trial.behind_s), 3) if trial.behind_s else None
        way, conversion = "not read", ""
        if read is not None and trial.samples:
            way = f"polled every {read.polled_s:g} s" if read.polled_s else "subscribed"
        variant = None if read is None else read.variant
        if variant is not None and DTYPES[variant] is not spec.dtype:
            conversion = f"{variant.name} as {spec.dtype}"
        return CheckedSignal(
            name=self._name(signal),
            value=trial.value,
            unit=spec.unit,
            per_s=trial.since_first / self.lasted_s if self.lasted_s else 0.0,
            way=way,
            conversion=conversion,
            behind_s=behind_s,
        )


def seconds_of(mapping: Mapping) -> float:
    """The length of a trial that sees some periods of each stream, within its bounds."""
    periods_s = [stream.spec.period_s for stream in mapping.streams]
    return min(max(PERIODS * max(periods_s), LEAST_S), MOST_S)


def _listed(names: Sequence[str]) -> str:
    others = f" and {len(names) - MOST_NAMED} others" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + others


def _duration(seconds: float) -> str:
    for unit_s, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.0f} s"
