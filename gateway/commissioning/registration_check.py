"""Checks a mapping against what the testbed has registered: organisation, equipment, streams."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as AnyMapping

from broker import api_client
from broker.errors import Invalid, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.responses.credentials import MeResponse
from broker.responses.equipment import EquipmentResponse, StreamPage
from broker.responses.organisations import OrganisationResponse, OrganisationsResponse
from broker.rights import Party
from broker.streams import StreamSpec
from gateway.commissioning import findings
from gateway.commissioning.findings import Finding
from gateway.mapping.model import Mapping

_SPEC_FIELDS = ("trigger", "period_s", "max_silence_s", "description")


async def check(mapping: Mapping, api: api_client.Api) -> list[Finding]:
    """Compare a mapping with what the caller of the API sees; nothing is registered or changed."""
    me = await api.get("/me", MeResponse)
    known = (await api.get("/organisations", OrganisationsResponse)).items
    results = list(_organisation(mapping.equipment, me, known))
    if me.organisation != mapping.equipment.organisation:
        return results
    results += await _equipment(mapping, api)
    listed = (await api.whole("/streams", StreamPage)).items
    specs = [stream.spec.spec() for stream in listed]
    registered = {spec.address: spec for spec in specs if spec.address.owner == mapping.equipment}
    return results + list(_streams(mapping, registered))


def _organisation(
    equipment: EquipmentAddress, me: MeResponse, known: Sequence[OrganisationResponse]
) -> Iterator[Finding]:
    """Findings about the organisation of a mapping, for the one who asks."""
    kinds = {organisation.id: organisation.kind for organisation in known}
    organisation = equipment.organisation
    is_operator = kinds.get(me.organisation) is Party.INTERMEDIARY
    if me.equipment is not None and me.equipment != str(equipment):
        yield findings.error(
            f"{me.principal} is the gateway of {me.equipment}, and the mapping is of {equipment}"
        )
    elif organisation == me.organisation:
        return
    elif is_operator and organisation not in kinds:
        yield findings.warning(
            f"there is no organisation {organisation} yet: testbed organisation create"
            f" {organisation} --kind partner --owner PERSON"
        )
    elif is_operator:
        yield findings.note(
            f"what the testbed has registered of {equipment} was not compared: {me.principal} is of"
            f" {me.organisation}, which sees no specs of {organisation}'s streams"
        )
    else:
        yield findings.error(
            f"the mapping is of organisation {organisation}, and {me.principal} is of"
            f" {me.organisation}: its own people alone enrol a gateway; correct `organisation`, or"
            f" sign in as one of them"
        )


async def _equipment(mapping: Mapping, api: api_client.Api) -> list[Finding]:
    """Whether the equipment is registered as another kind; a new one may be of any."""
    try:
        registered = await api.get(f"/equipment/{mapping.equipment}", EquipmentResponse)
    except Unknown:
        return []
    if registered.kind is mapping.kind:
        return []
    sentence = f"{mapping.equipment} is registered as {registered.kind}, and is {mapping.kind} here"
    return [
        findings.error(
            f"{sentence}; that never changes: write kind: {registered.kind}, or name another"
            " equipment"
        )
    ]


def _streams(
    mapping: Mapping, registered: AnyMapping[StreamAddress, StreamSpec]
) -> Iterator[Finding]:
    """The streams that would get another spec than they have, or that nothing publishes."""
    mapped = {stream.spec.address: stream.spec for stream in mapping.streams}
    for address, spec in mapped.items():
        if address in registered:
            yield from _spec(spec, registered[address])
    for address in registered.keys() - mapped.keys():
        yield findings.warning(
            f"{address.stream}: it is registered and not in the mapping: nothing publishes it"
        )


def _spec(spec: StreamSpec, registered: StreamSpec) -> Iterator[Finding]:
    """The differences of a spec from the newest one that is registered."""
    try:
        spec.follows(registered)
    except Invalid as exc:
        yield findings.error(f"{exc.message}; {exc.hint}")
        return
    differences = "; ".join(_differences(spec, registered))
    if differences:
        yield findings.warning(
            f"{spec.address.stream}: it differs from version {registered.version}, which is"
            f" registered: {differences}; `gateway run` registers it as version"
            f" {registered.version + 1}"
        )


def _differences(spec: StreamSpec, registered: StreamSpec) -> Iterator[str]:
    """The differences of two specs, a text for each kind."""
    common = [name for name in spec.names if name in registered.names]
    yield from _named("new signals", (name for name in spec.names if name not in common))
    yield from _named("without", (name for name in registered.names if name not in common))
    changed = (name for name in common if spec.signal(name) != registered.signal(name))
    yield from _named("changed signals", changed)
    for field in _SPEC_FIELDS:
        before, now = getattr(registered, field), getattr(spec, field)
        if before != now:
            yield f"{field} {now} instead of {before}"
    if spec.names != registered.names and sorted(spec.names) == sorted(registered.names):
        yield "another order of its signals"


def _named(what: str, names: Iterable[str]) -> Iterator[str]:
    """A text with names, none without any."""
    if listed := ", ".join(names):
        yield f"{what} {listed}"
