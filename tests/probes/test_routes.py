"""Over HTTP nobody is given, told or shown what the policy does not allow."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import httpx
import pytest

from broker import policy
from broker.clock import WallClock
from broker.policy import Target
from broker.rights import Action, Rights
from tests.probes import routes
from tests.probes.backends import Processes
from tests.probes.cast import (
    GUESTS,
    ORGANISATIONS,
    PAUSED,
    RUN_OWNERS,
    SPARE,
    STREAMS,
    WATCHER,
    Cast,
    canary,
)
from tests.probes.results import Found
from tests.probes.routes import ROUTES, Question, Route

CLOCK = WallClock()
REFUSALS = frozenset({401, 403, 404})
UNLIKE = ("date", "content-length", "x-request-id")
REQUEST = re.compile(r',"request":"[^"]*"')

ASK_ALL = ("factory-owner", "institute-owner", "stranger-owner")

Answers = dict[tuple[str, str], httpx.Response]


def test_over_a_second_broker_only_reads_of_registry_and_store_are_left_out():
    left_out = {route.name for route in ROUTES if not routes.depends_on_broker(route)}
    assert all(name.startswith("GET ") for name in left_out)
    assert "GET /audit" in left_out
    assert {route.name for route in ROUTES} >= routes.FROM_THE_BUS
    assert {"GET /ready", "GET /status", "GET /streams"} <= routes.FROM_THE_BUS
    assert any(name.endswith("/live") for name in routes.FROM_THE_BUS)


def test_every_route_says_what_it_asks_for_and_is_about(cast_of_nobody: Cast):
    for route in ROUTES:
        assert routes.questions(route, cast_of_nobody)


def test_a_new_route_without_an_action_or_a_decision_fails(cast_of_nobody: Cast):
    bare = {"paths": {"/api/v1/new": {"get": {}}}}
    with pytest.raises(AssertionError, match="names no x-action"):
        routes.of(bare)
    bare["paths"]["/api/v1/new"] = {"post": {"x-action": "share"}}
    (new,) = routes.of(bare)
    with pytest.raises(AssertionError, match="nothing says what POST /new is about"):
        routes.questions(new, cast_of_nobody)


@pytest.mark.timeout(1_800)
async def test_nobody_is_answered_what_the_policy_does_not_allow(
    probed: Processes, cast: Cast, findings: Found, share: int, backend: str
):
    asked_routes = _routes(backend, share)
    every = [each for route in asked_routes for each in routes.questions(route, cast)]
    given: Answers = {}
    async with httpx.AsyncClient(base_url=probed.url, timeout=30) as http:
        for who, question in _in_order(cast, every, share):
            answer = await _answer(http, cast.credentials[who], question)
            _judge(findings, cast, who, question, answer)
            given[who, question.name] = answer
    await CLOCK.sleep(1)  # those who followed what comes in look once more whether they still may
    for who in _people(cast):
        for question in every:
            _compare(findings, cast, who, question, given)
    _each_route_can_be_asked(findings, asked_routes, every, given)
    findings.judge()


def _routes(backend: str, share: int) -> list[Route]:
    """The routes that are asked over a broker: all of them over the embedded one.

    Over Mosquitto those are left out, unless at full size, whose response comes from registry and
    store alone: it is the same code, process and policy, and the broker has no part in it.
    """
    every_route = share == 1 or backend == "nats"
    return [route for route in ROUTES if every_route or routes.depends_on_broker(route)]


def _people(cast: Cast) -> list[str]:
    return [who for who in cast.credentials if who != WATCHER and not who.startswith(SPARE)]


def _in_order(cast: Cast, every: list[Question], share: int) -> Iterator[tuple[str, Question]]:
    """First all that changes nothing: what is read, and what is refused; then what is changed, and
    what is ended, a part before its whole.

    Whoever is nobody gets no further than the door, which is the same for all that is about one
    route.  share: of the routes each asks one in so many, the next one another; a few ask all, and
    the first who may ask something does.
    """
    at_ns = CLOCK.now_ns()
    names = [each.name for each in ROUTES]
    last: list[tuple[str, Question]] = []
    let_in: set[str] = set()
    for number, who in enumerate(_people(cast)):
        asked_already = set()
        for question in every:
            if who not in cast.whose and question.route.name in asked_already:
                continue
            if question.route.action is None and who != "anonymous":
                continue
            may = routes.may(cast, who, question, at_ns)
            is_first = may and question.exists and question.route.name not in let_in
            everything = is_first or who in ASK_ALL or question.route.action is None
            if not everything and (number + names.index(question.route.name)) % share:
                continue
            asked_already.add(question.route.name)
            if is_first:
                let_in.add(question.route.name)
            if question.route.method in routes.SAFE or not may:
                yield who, question
            else:
                last.append((who, question))
    yield from sorted(last, key=lambda each: _end(each[1]))


def _end(question: Question) -> tuple[bool, int]:
    ends = question.route.method == "DELETE"
    return ends, -question.path.count("/") if ends else 0


async def _answer(http: httpx.AsyncClient, credential: str, question: Question) -> httpx.Response:
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    kind = "content" if isinstance(question.body, bytes) else "json"
    body = {} if question.body is None else {kind: question.body}
    path, method = question.path, question.route.method
    async with http.stream(method, path, headers=headers, **body) as answer:
        endless = answer.headers.get("content-type", "").startswith("text/event-stream")
        if not endless:
            await answer.aread()
        else:
            answer._content = b""
    return answer


def _judge(
    findings: Found, cast: Cast, who: str, question: Question, answer: httpx.Response
) -> None:
    status, at_ns = answer.status_code, CLOCK.now_ns()
    probe = f"{who} asks {question.name}"
    if status >= 500:
        findings.fault(probe, f"answered {status}: {answer.text[:200]}")
    if question.route.action is None:
        return
    allowed = routes.may(cast, who, question, at_ns)
    refused = {401, 403} if allowed and not question.exists else REFUSALS
    gone = allowed and question.route.method not in routes.SAFE and status == 404
    findings.hold(f"{probe} ({status})", status not in refused or gone, may=allowed)
    if who not in cast.whose and status != 401:
        findings.fault(probe, f"answered {status} to nobody")
    paused = status == 403 and answer.json().get("code") == "paused"
    if paused and cast.rights.principal(cast.whose[who], at_ns).organisation != PAUSED:
        findings.fault(probe, "answered that a grant is paused, and it holds none")
    not_granted = _is_not_granted(answer)
    if not_granted and not _is_a_guest(cast, who, at_ns):
        findings.fault(probe, "answered that a grant has ended, and it had none")
    by_name = "principal" in question.route.parameters  # a role is asked for first: see `_compare`
    if (
        status == 403
        and who in cast.whose
        and not not_granted
        and not (by_name or routes.sees(cast, who, question, at_ns))
    ):
        findings.fault(probe, "answered 403: so it is there")
    if question.route.method in routes.SAFE or not allowed:
        _nothing_is_told(findings, cast, who, question, answer)


def _nothing_is_told(
    findings: Found, cast: Cast, who: str, question: Question, answer: httpx.Response
) -> None:
    """No answer has words of an object in it that is not there for who asked."""
    operates = question.route.action in routes.THE_TESTBED and routes.may(
        cast, who, question, CLOCK.now_ns()
    )
    if operates:
        objects: Mapping[str, Target] = _ORGANISATIONS if "organisations" in question.path else {}
    else:
        objects = _OBJECTS
    principal = cast.rights.principal(cast.whose.get(who, ""), CLOCK.now_ns())
    for words, target in objects.items():
        if words in answer.text and (
            principal is None or not routes.exists_for(cast, principal, target, CLOCK.now_ns())
        ):
            findings.fault(f"{who} asks {question.name}", f"is told of {target}")
    for what, owner, action in () if operates else _NUMBERED:
        if canary(f"{what} of {owner}") in answer.text and (
            principal is None
            or not policy.decide(cast.rights, principal.id, action, owner, CLOCK.now_ns()).allowed
        ):
            findings.fault(f"{who} asks {question.name}", f"is told of {what} of {owner}")


_NUMBERED = [
    (what, owner, action)
    for what, action in (("runs", Action.REVIEW), ("deployments", Action.OVERSEE))
    for owner in RUN_OWNERS
]
_ORGANISATIONS = {canary(each): each for each in ORGANISATIONS}
_OBJECTS: Mapping[str, Target] = {
    **_ORGANISATIONS,
    **{canary(each): each for each in STREAMS},
    **{canary(each.owner): each.owner for each in STREAMS},
}


def _compare(findings: Found, cast: Cast, who: str, question: Question, given: Answers) -> None:
    """What is foreign and what is missing answer byte for byte alike, but for the id."""
    if (
        question.twin is None
        or (who, question.name) not in given
        or (who, question.twin.name) not in given
    ):
        return
    at_ns = CLOCK.now_ns()
    missing, foreign = given[who, question.name], given[who, question.twin.name]
    if routes.may(cast, who, question.twin, at_ns) and question.twin.exists:
        return
    if who in cast.whose and missing.status_code != 404 and foreign.status_code == 403:
        return  # it sees this, and its roles may not do that
    if _is_not_granted(foreign) and _is_a_guest(cast, who, at_ns):
        return  # its own organisation had a grant of this, so it knows of it
    findings.probes += 1
    same_text = _text(missing).replace(*question.renamed) == _text(foreign)
    heads = [
        {name: value for name, value in each.headers.items() if name not in UNLIKE}
        for each in (missing, foreign)
    ]
    if (missing.status_code, heads[0]) != (foreign.status_code, heads[1]) or not same_text:
        if who in cast.whose and routes.sees(cast, who, question.twin, at_ns):
            return
        findings.fault(
            f"{who} asks {question.name}",
            f"answers {missing.status_code} {missing.text} where it is missing,"
            f" and {foreign.status_code} {foreign.text} where it is another's",
        )


def _is_not_granted(answer: httpx.Response) -> bool:
    return answer.status_code == 403 and answer.json().get("code") == "not_granted"


def _is_a_guest(cast: Cast, who: str, at_ns: int) -> bool:
    """Whether its organisation was granted the rig, now or before."""
    principal = cast.rights.principal(cast.whose.get(who, ""), at_ns)
    return principal is not None and principal.organisation in GUESTS


def _text(answer: httpx.Response) -> str:
    """What it says, but for the number of the request."""
    return REQUEST.sub("", answer.text)


def _each_route_can_be_asked(
    findings: Found, asked_routes: list[Route], every: list[Question], given: Answers
) -> None:
    """Each was let through for somebody with what it asks for: else no refusal proves anything."""
    route_of = {question.name: question.route.name for question in every}
    served = {
        route_of[name]
        for (_, name), answer in given.items()
        if answer.is_success
        or answer.status_code == 409
        or (answer.status_code == 422 and route_of[name] in routes.ASKS_ELSEWHERE)
    }
    for route in asked_routes:
        if route.name not in served:
            findings.fault(route.name, "nobody was let through, so its refusals prove nothing")


@pytest.fixture
def cast_of_nobody() -> Cast:
    """Enough to write questions with."""
    numbers: Mapping[str, int] = defaultdict(int)
    return Cast(Rights(), {}, {}, numbers, numbers, "", numbers)
