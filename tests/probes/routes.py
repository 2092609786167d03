"""Every route of the OpenAPI document, as somebody would ask it who means no good.

A route is known by itself: its action is its `x-action`, what it is about stands in its path, and
its body is made from the document's examples.  Where the path does not say what it is about, ABOUT
does; a route that is in neither place fails.
"""

import base64
import importlib
import pkgutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker import enrolment, policy
from broker.namespace import LIVE, StreamAddress, StreamTopic, Verb
from broker.policy import Target
from broker.rights import Action, Entry, Principal, PrincipalKind
from testbed_api.http import routes as rooms
from testbed_api.http.app import openapi_document
from testbed_api.http.auth import ACTION, OPEN
from tests.probes.cast import (
    DIGEST,
    IMAGE,
    MILL,
    NARROWED,
    PASSWORD,
    PRESS,
    RIG,
    RUN,
    RUN_OWNERS,
    SECRET,
    SPARE,
    TWO_TOKENS,
    Cast,
)

ROOT = "/api/v1"
SAFE = ("GET", "HEAD")
THE_TESTBED = frozenset({Action.OPERATE, Action.FOUND, Action.ENTER, Action.RUN})
"""What they are about is the testbed, or oneself, whatever stands in the path."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the document.  body: an example of what it takes, None for nothing."""

    method: str
    path: str
    action: Action | None
    parameters: tuple[str, ...]
    body: Any = None

    @property
    def name(self) -> str:
        """As the document writes it."""
        return f"{self.method} {self.path.removeprefix(ROOT) or '/'}"


@dataclass(frozen=True, slots=True)
class Question:
    """A route with everything filled in.

    about: who may do it to one of these may ask; of an organisation by its id, None for the
    testbed, OWN for whatever belongs to who asks.  exists: False for what is missing.  twin: the
    same about what is there; renamed: what differs, missing and there.  seen: for whom one of these
    is there, so is what is asked about; `about` where nothing is named.  whose: for nobody else
    it is there, whatever the policy says; anybody's where nobody is named.  read: who may read
    this may ask as well.
    """

    route: Route
    path: str
    about: tuple[Target, ...]
    body: Any = None
    exists: bool = True
    twin: "Question | None" = None
    renamed: tuple[str, str] = ("", "")
    seen: tuple[Target, ...] = ()
    whose: str = ""
    read: StreamTopic | None = None

    @property
    def name(self) -> str:
        """For a list of failures."""
        in_body = isinstance(self.body, dict) and "streams" in self.body
        named = self.body is None or (self.route.parameters and not in_body)
        about = "" if named else f" about {self.about[0]}"
        return f"{self.route.method} {self.path.removeprefix(ROOT)}{about}"


OWN = "(one's own organisation)"
EXISTING = (RIG, MILL, PRESS)
MISSING = (
    (RIG, ("fuctory", "factory")),
    (MILL, ("mull", "mill")),
    (PRESS, ("farce", "force")),
)
"""Streams, and what of their names another letter makes one that is missing."""
SPEC_OF_ONE = {"$ref": "#/components/schemas/NamedSpecForm"}
"""The schema of a spec among others of its equipment."""
NOBODYS = 987_654_321
"""A number that nothing has."""

About = Callable[[Route, Cast], Iterator[Question]]


def of(document: Mapping[str, Any]) -> list[Route]:
    """All of them; fails for one that does not name its action."""
    routes = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = operation.get(ACTION)
            assert name is not None, f"{method.upper()} {path} names no {ACTION}"
            action = None if name == OPEN else Action(name)
            wanted = tuple(
                each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"
            )
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            body = None if schema is None else example(schema, document)
            routes.append(Route(method.upper(), path, action, wanted, body))
    return routes


def questions(route: Route, cast: Cast) -> list[Question]:
    """What it is asked about; fails for a route of which nothing says what it is about."""
    if route.name in ABOUT:
        return list(ABOUT[route.name](route, cast))
    wanted = set(route.parameters)
    if route.action in THE_TESTBED or route.action is None:
        about = _testbed
    elif "organisation" in wanted:
        about = _streams
    elif "principal" in wanted:
        about = _machines
    elif "/grants/{number}" in route.path:
        about = _grants
    elif isinstance(route.body, dict) and "streams" in route.body:
        about = _bodies
    elif route.method in SAFE and not wanted:
        about = _own
    else:
        raise AssertionError(f"nothing says what {route.name} is about: put it into routes.ABOUT")
    return list(about(route, cast))


def may(cast: Cast, who: str, question: Question, at_ns: int) -> bool:
    """What the policy says."""
    if question.route.action is None:
        return True
    principal = cast.rights.principal(cast.whose.get(who, ""), at_ns)
    whole = principal is not None and principal.kind is PrincipalKind.PERSON and who != NARROWED
    if principal is None or (question.route.name in FOR_PEOPLE and not whole):
        return False
    if question.whose not in {"", who}:
        return False
    asked_for = [(question.route.action, each) for each in _resolved(question, principal)]
    if question.read is not None:
        asked_for.append((Action.SUBSCRIBE, question.read))
    return any(
        policy.decide(cast.rights, principal.id, action, each, at_ns).allowed
        for action, each in asked_for
    )


def sees(cast: Cast, who: str, question: Question, at_ns: int) -> bool:
    """Whether it may be told that what it is refused is there."""
    principal = cast.rights.principal(cast.whose[who], at_ns)
    return principal is not None and any(
        exists_for(cast, principal, each, at_ns)
        for each in question.seen or _resolved(question, principal)
    )


def exists_for(cast: Cast, principal: Principal, target: Target, at_ns: int) -> bool:
    """Whether an object is there for somebody."""

    def allows(action: Action, part: Target) -> bool:
        return policy.decide(cast.rights, principal.id, action, part, at_ns).allowed

    if target is None:
        return True
    if isinstance(target, str):
        owned = (each.address for each in cast.rights.known if each.address.organisation == target)
        own = target == principal.organisation or allows(Action.FOUND, None)
        own = own or allows(Action.REVIEW, target)  # its runs name it
        own = own or allows(Action.OVERSEE, target)  # its deployments name it
        return own or any(
            allows(Action.SEE, each.owner) or allows(Action.SEE, each) for each in owned
        )
    return allows(Action.SEE, target.address if isinstance(target, StreamTopic) else target)


def _resolved(question: Question, principal: Principal) -> Iterator[Target]:
    return (principal.organisation if each == OWN else each for each in question.about)


def depends_on_broker(route: Route) -> bool:
    """Whether its response can differ between brokers: it may change rights, which a broker must
    follow, or it returns what comes from the bus.
    """
    return route.method not in SAFE or route.name in FROM_THE_BUS


# --- what a route is about ------------------------------------------------------------------------


def _testbed(route: Route, _cast: Cast) -> Iterator[Question]:
    yield Question(route, filled(route, RIG), (None,), route.body)


def _to_all(route: Route, cast: Cast) -> Iterator[Question]:
    """To whom it is listed: the document's example leaves that open."""
    yield from _streams(replace(route, body={"everybody": True}), cast)


def _own(route: Route, _cast: Cast) -> Iterator[Question]:
    """What belongs to who asks; of AUDIT also everything, for those who may."""
    about = (OWN, None) if route.action is Action.AUDIT else (OWN,)
    yield Question(route, route.path, about, route.body)


def _listed(route: Route, _cast: Cast) -> Iterator[Question]:
    """A list of what each may see, which may be empty: for whoever is known."""
    yield Question(replace(route, action=Action.ENTER), route.path, (None,))


def _streams(route: Route, _cast: Cast) -> Iterator[Question]:
    """An organisation, an equipment or a stream, as far as the path names it."""
    questions = {
        each: Question(route, filled(route, each), (_named(route, each),), route.body)
        for each in EXISTING
    }
    yield from {each.path: each for each in questions.values()}.values()
    if route.action is Action.SUBSCRIBE:
        yield Question(route, f"{questions[RIG].path}?space={RUN}", (_reading(RIG, RUN),))
    for stream, (word, there) in MISSING:
        path = questions[stream].path.replace(there, word)
        if path != questions[stream].path:
            about = _named(route, StreamAddress.parse(str(stream).replace(there, word)))
            yield Question(
                route,
                path,
                (about,),
                route.body,
                exists=False,
                twin=questions[stream],
                renamed=(word, there),
            )


def _named(route: Route, stream: StreamAddress) -> Target:
    if route.action is Action.SUBSCRIBE:
        return _reading(stream)
    if "stream" in route.parameters:  # a machine watches what it publishes, in that space
        return Entry(LIVE, stream) if route.action is Action.WATCH else stream
    return stream.owner if "equipment" in route.parameters else stream.organisation


def _reading(stream: StreamAddress, space: str = LIVE) -> StreamTopic:
    return StreamTopic(space, Verb.DATA, stream)


def _runs(route: Route, cast: Cast) -> Iterator[Question]:
    """A run that an organisation handed over, by its number."""
    for owner in RUN_OWNERS:
        yield from _numbered(route, (owner,), cast.runs[owner])


def _compared(route: Route, cast: Cast) -> Iterator[Question]:
    """Two runs of an organisation, and one that is missing beside one of them."""
    for owner in RUN_OWNERS:
        first, second = cast.runs[owner], cast.runs[f"{SPARE}-{owner}"]
        existing = Question(route, f"{route.path}?ids={first},{second}", (owner,))
        yield existing
        path, renamed = f"{route.path}?ids={NOBODYS},{second}", (str(NOBODYS), str(first))
        yield Question(route, path, (owner,), exists=False, twin=existing, renamed=renamed)


def _runs_of(route: Route, _cast: Cast) -> Iterator[Question]:
    """The runs of one's own organisation, and of another one by its id."""
    yield Question(route, route.path, (OWN,))
    for owner in RUN_OWNERS:
        yield Question(route, f"{route.path}?organisation={owner}", (owner,))


def _machines(route: Route, cast: Cast) -> Iterator[Question]:
    """A machine of an organisation, by its name, with the number of its token."""
    for owner in ("factory", "stranger"):
        name = f"{SPARE}-{owner}-machine"
        path = filled(route, RIG, principal=name, number=cast.tokens[name])
        existing = Question(route, path, (owner,), route.body)
        yield existing
        missing = path.replace(SPARE, "spore")
        yield Question(
            route,
            missing,
            (owner,),
            route.body,
            exists=False,
            twin=existing,
            renamed=("spore", SPARE),
        )


def _grants(route: Route, cast: Cast) -> Iterator[Question]:
    """A grant of the factory's rig that has ended, or is waited for where that is what ends: for
    its owner, or the company, or both.

    Both sides see it.
    """
    sides = ("factory", "company")
    about = {Action.WITHDRAW: sides[1:], Action.WATCH: sides}.get(route.action, sides[:1])
    number = cast.grants.get(route.path.rpartition("/")[2], cast.grants[SPARE])
    for question in _numbered(route, about, number):
        twin = None if question.twin is None else replace(question.twin, seen=sides)
        yield replace(question, seen=sides, twin=twin)


def _selected(route: Route, cast: Cast) -> Iterator[Question]:
    """A grant that the body names by its number; in every other way it is as one in the path."""
    for question in _grants(route, cast):
        if question.exists:
            number = cast.grants.get(route.path.rpartition("/")[2], cast.grants[SPARE])
            yield replace(question, body={"numbers": [number]})


def _numbered(route: Route, about: tuple[Target, ...], number: int) -> Iterator[Question]:
    existing = Question(route, filled(route, RIG, number=number), about, route.body)
    yield existing
    path, renamed = filled(route, RIG, number=NOBODYS), (str(NOBODYS), str(number))
    yield Question(route, path, about, route.body, exists=False, twin=existing, renamed=renamed)


def _tokens(route: Route, cast: Cast) -> Iterator[Question]:
    """One's own."""
    for owner in TWO_TOKENS:
        existing, missing = _numbered(route, (None,), cast.tokens[f"{SPARE}-{owner}"])
        own = replace(existing, whose=owner)
        yield from (own, replace(missing, twin=own))


def _specs(route: Route, _cast: Cast) -> Iterator[Question]:
    """A stream of an equipment, named in the body."""

    def question(stream: StreamAddress, **more: Any) -> Question:
        body = {"streams": [example(SPEC_OF_ONE, DOCUMENT) | {"stream": stream.stream}]}
        return Question(route, filled(route, stream), (stream,), body, **more)

    existing = {each: question(each) for each in EXISTING}
    yield from existing.values()
    for stream, renamed in MISSING:
        missing = StreamAddress.parse(str(stream).replace(*reversed(renamed)))
        yield question(missing, exists=False, twin=existing[stream], renamed=renamed)


def _samples(route: Route, cast: Cast) -> Iterator[Question]:
    """The rig alone is listed with one."""
    for question in _streams(route, cast):
        yield replace(question, exists=question.exists and RIG.equipment in question.path)


def _signing_in(route: Route, _cast: Cast) -> Iterator[Question]:
    """Somebody with a password."""
    yield Question(route, route.path, (None,), {"person": f"{SPARE}-factory", "password": PASSWORD})


def _enrolling(route: Route, cast: Cast) -> Iterator[Question]:
    """A gateway with a key of its own, and the code."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    proof = {"public_key": public, "signature": key.sign(enrolment.statement(cast.code, public))}
    encoded = {name: base64.b64encode(raw).decode() for name, raw in proof.items()}
    yield Question(route, route.path, (None,), {"code": cast.code} | encoded)


def _pushing(route: Route, cast: Cast) -> Iterator[Question]:
    """A packed project of an organisation."""
    entry = tarfile.TarInfo("prototype.py")
    archive = entry.tobuf() + bytes(2 * tarfile.BLOCKSIZE)
    for question in _streams(replace(route, body=archive), cast):
        path = f"{question.path}?name=watch&kind=project"
        twin = question.twin
        twin = None if twin is None else replace(twin, path=f"{twin.path}?name=watch&kind=project")
        yield replace(question, path=path, twin=twin)


def _enrolling_runner(route: Route, cast: Cast) -> Iterator[Question]:
    """A runner with a key of its own, and the code."""
    yield from _enrolling(route, replace(cast, code=cast.runner_code))


def _deploying(route: Route, cast: Cast) -> Iterator[Question]:
    """A prototype without inputs: who may read them is another question."""
    body = route.body | {"manifest": route.body["manifest"] | {"inputs": {}}}
    yield from _streams(replace(route, body=body), cast)


def _deployments(route: Route, cast: Cast) -> Iterator[Question]:
    """A deployment of an organisation, by its number."""
    for owner in RUN_OWNERS:
        yield from _numbered(route, (owner,), cast.deployments[owner])


def _sites(route: Route, _cast: Cast) -> Iterator[Question]:
    """A runner of an organisation, by its name."""
    for owner in RUN_OWNERS:
        existing = Question(route, filled(route, RIG, runner=f"{SPARE}-{owner}-site"), (owner,))
        yield existing
        path = existing.path.replace(SPARE, "spore")
        renamed = ("spore", SPARE)
        yield Question(route, path, (owner,), exists=False, twin=existing, renamed=renamed)


def _material(route: Route, cast: Cast) -> Iterator[Question]:
    """What a deployment starts with, for the site that has it."""
    existing, missing = _numbered(route, (None,), cast.deployments[SPARE])
    own = replace(existing, whose="factory-site")
    yield from (own, replace(missing, twin=own))


def _archives(route: Route, _cast: Cast) -> Iterator[Question]:
    """The archive of an image that each site has a deployment of, and of one that none has."""
    existing = Question(route, filled(route, RIG, digest=DIGEST), (None,))
    yield existing
    renamed = (IMAGE, DIGEST)
    path = filled(route, RIG, digest=IMAGE)
    yield Question(route, path, (None,), exists=False, twin=existing, renamed=renamed)


def _bodies(route: Route, _cast: Cast) -> Iterator[Question]:
    """Streams that the body names."""
    questions = {
        each: Question(route, route.path, (Entry(LIVE, each),), _naming(route, each))
        for each in EXISTING
    }
    yield from questions.values()
    for stream, renamed in MISSING:
        missing = StreamAddress.parse(str(stream).replace(*reversed(renamed)))
        about = (Entry(LIVE, missing),)
        yield Question(
            route,
            route.path,
            about,
            _naming(route, missing),
            exists=False,
            twin=questions[stream],
            renamed=renamed,
        )


def _recorded(route: Route, _cast: Cast) -> Iterator[Question]:
    """Streams that the body names, to be read."""
    questions = {
        each: Question(route, route.path, (_reading(each),), _naming(route, each))
        for each in EXISTING
    }
    yield from questions.values()
    for stream, renamed in MISSING:
        missing = StreamAddress.parse(str(stream).replace(*reversed(renamed)))
        yield Question(
            route,
            route.path,
            (_reading(missing),),
            _naming(route, missing),
            exists=False,
            twin=questions[stream],
            renamed=renamed,
        )


def _recordings(route: Route, cast: Cast) -> Iterator[Question]:
    """The company's recording of the factory's rig: both sides see it, and who reads the rig."""
    sides = ("company", "factory")
    about: Mapping[Action | None, tuple[Target, ...]] = {
        Action.SUBSCRIBE: (_reading(RIG),),
        Action.WATCH: ("company", Entry(LIVE, RIG)),
        Action.SHARE: ("company", RIG),
    }
    for question in _numbered(route, about[route.action], cast.recording):
        twin = None if question.twin is None else replace(question.twin, seen=sides)
        read = _reading(RIG) if route.action is Action.WATCH else None
        yield replace(question, seen=sides, twin=twin, read=read)


def _naming(route: Route, stream: StreamAddress) -> Any:
    return route.body | {"streams": [{"stream": str(stream)}]}


ABOUT: Mapping[str, About] = {
    "GET /equipment": _listed,
    "GET /streams": _listed,
    "GET /status": _listed,
    "GET /retentions": _listed,
    "GET /recordings": _listed,
    "POST /recordings": _recorded,
    "GET /recordings/{number}": _recordings,
    "GET /recordings/{number}/bundle": _recordings,
    "POST /recordings/{number}/verify": _recordings,
    "DELETE /recordings/{number}": _recordings,
    "POST /credentials": _own,
    "GET /listings": _listed,
    "PUT /equipment/{organisation}/{equipment}/listing": _to_all,
    "POST /equipment/{organisation}/{equipment}/specs": _specs,
    "POST /requests": _bodies,
    "POST /grants/approval": _selected,
    "POST /grants/refusal": _selected,
    "POST /grants/revocation": _selected,
    "POST /grants/withdrawal": _selected,
    "POST /organisations/{organisation}/images": _pushing,
    "GET /runs": _runs_of,
    "GET /runs/compare": _compared,
    "GET /runs/{number}": _runs,
    "GET /runs/{number}/evidence": _runs,
    "GET /runs/{number}/report": _runs,
    "DELETE /runs/{number}": _runs,
    "POST /pauses": _own,
    "DELETE /pauses": _own,
    "DELETE /tokens/{number}": _tokens,
    "GET /equipment/{organisation}/{equipment}/sample": _samples,
    "POST /sign-in": _signing_in,
    "POST /enrolments": _enrolling,
    "POST /organisations/{organisation}/deployments": _deploying,
    "POST /organisations/{organisation}/deployments/gates": _deploying,
    "GET /deployments": _runs_of,
    "GET /deployments/{number}": _deployments,
    "GET /deployments/{number}/events": _deployments,
    "GET /deployments/{number}/logs": _deployments,
    "GET /deployments/{number}/metrics": _deployments,
    "GET /deployments/{number}/why": _deployments,
    "GET /deployments/{number}/follow": _deployments,
    "POST /deployments/{number}/stop": _deployments,
    "POST /deployments/{number}/promote": _deployments,
    "POST /deployments/{number}/rollback": _deployments,
    "POST /runners": _own,
    "POST /runners/enrol": _enrolling_runner,
    "DELETE /runners/{runner}": _sites,
    "POST /runner/deployments/{number}/material": _material,
    "GET /runner/images/{digest}": _archives,
}
"""Where the path does not say it."""
ASKS_ELSEWHERE = frozenset({"POST /organisations/{organisation}/images/registry"})
"""Where the answer is that of another server, which the probes have not: 422 says who may ask."""
FOR_PEOPLE = frozenset(
    {"POST /tokens", "DELETE /tokens/{number}", "PUT /me/password"},
)
"""What a machine is told to do otherwise, and a token of some roles not to do."""


# --- filling in -----------------------------------------------------------------------------------


def filled(route: Route, stream: StreamAddress, /, **more: object) -> str:
    """Its path, about this stream."""
    values: dict[str, object] = {
        "organisation": stream.organisation,
        "equipment": stream.equipment,
        "stream": stream.stream,
        "space": LIVE,
        "version": 1,
        "number": NOBODYS,
        "person": f"{SPARE}-{stream.organisation}",
        "principal": f"{SPARE}-{stream.organisation}-machine",
        "digest": IMAGE,
        "name": SECRET,
        "runner": f"{SPARE}-{stream.organisation}-site",
    } | more
    return route.path.format(**values)


def example(  # noqa: PLR0911 - a kind each
    schema: Mapping[str, Any], document: Mapping[str, Any]
) -> Any:
    """Something that a schema allows: its own example, or the least there can be."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for given in ("examples", "enum"):
        if schema.get(given):
            return schema[given][0]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], document)
    match schema.get("type"):
        case "object":
            wanted = schema.get("required", ())
            return {each: example(schema["properties"][each], document) for each in wanted}
        case "array":
            return [example(schema["items"], document)] * schema.get("minItems", 0)
        case "number" | "integer":
            return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        case "boolean":
            return True
    return "correct horse battery"[: schema.get("maxLength", 40)]


def _reading_the_bus() -> Iterator[str]:
    """Names of the routes that take the bus, or the freshness or batches that come over it."""
    for module in pkgutil.iter_modules(rooms.__path__, f"{rooms.__name__}."):
        for route in importlib.import_module(module.name).router.routes:
            arguments = {dependency.name for dependency in route.dependant.dependencies}
            if arguments & {"bus", "freshness", "live_feeds"}:
                yield from (f"{method} {route.path}" for method in route.methods)


DOCUMENT = openapi_document()
ROUTES = of(DOCUMENT)
FROM_THE_BUS = frozenset(_reading_the_bus())
