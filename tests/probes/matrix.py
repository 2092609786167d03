"""Who may do what, as a page: `python -m tests.probes.matrix` writes docs/reference/access.md."""

from collections.abc import Iterator
from pathlib import Path

from broker import policy
from broker.namespace import LIVE, StreamTopic, Verb
from broker.policy import Target
from broker.rights import (
    Action,
    Entry,
    Grant,
    Listing,
    Party,
    Principal,
    PrincipalKind,
    Rights,
    Role,
    Scope,
    Span,
)
from tests.probes import routes
from tests.probes.cast import RIG

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "access.md"
_STREAM = frozenset({Entry(LIVE, RIG)})
_PARTIES = {
    "factory": Party.PARTNER,
    "company": Party.COMPANY,
    "looker": Party.COMPANY,
    "stranger": Party.PARTNER,
    "institute": Party.INTERMEDIARY,
    "fund": Party.AGENCY,
}
_MACHINES = {
    "gateway": ("factory", Scope(equipment=RIG.owner)),
    "machine that reads it": ("company", Scope(_STREAM)),
    "another machine": ("company", Scope()),
}
_RUNNERS = {"runner": "factory"}
_COLUMNS = {
    "owning organisation": ("factory", (*Role, "gateway", "runner")),
    "company with a grant": ("company", (*Role, "machine that reads it", "another machine")),
    "listed to": ("looker", (Role.OWNER, Role.DEVELOPER)),
    "anybody else": ("stranger", (Role.OWNER, Role.DEVELOPER)),
    "intermediary": ("institute", (Role.OWNER, Role.OPERATOR, Role.AUDITOR)),
    "agency": ("fund", (Role.OWNER, Role.AUDITOR)),
}
_TESTBED = frozenset({Action.OPERATE, Action.FOUND, Action.ENTER, Action.RUN})
_ORGANISATION = frozenset(
    {
        *(Action.MANAGE, Action.ISSUE, Action.AUDIT, Action.REVIEW, Action.SUBMIT),
        *(Action.DEPLOY, Action.HALT, Action.OVERSEE, Action.HOST),
    }
)
HEAD = """# Who may do what

Written by `python -m tests.probes.matrix` from the policy (`broker/policy.py`) and the OpenAPI
document; `tests/docs` holds it against them, and `tests/probes` holds a running server against the
same policy. Whatever stands in no column is nobody's. Paused, expired and revoked grants are as
none (a paused one answers 403 `paused` to who would read under it, one that ended or waits 403
`not_granted`); whoever is removed, or shows no credential that counts, is nobody. A person's token
that was made for some roles stands where these roles stand.

"""
NONE = "no"


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join([*_actions(), "", "## Which route asks for what", "", *_routes(), ""])


def _actions() -> Iterator[str]:
    """A line an action: about the factory's rig, the factory, or the testbed."""
    rights = _rights()
    yield f"| action | about | {' | '.join(_COLUMNS)} |"
    yield "|---" * (len(_COLUMNS) + 2) + "|"
    for action in Action:
        what, target = _about(action)
        cells = []
        for organisation, several in _COLUMNS.values():
            yes = [
                str(each)
                for each in several
                if policy.decide(rights, _name(organisation, each), action, target, 0).allowed
            ]
            cells.append("all" if len(yes) == len(several) else ", ".join(yes) or NONE)
        yield f"| {action} | {what} | {' | '.join(cells)} |"


def _about(action: Action) -> tuple[str, Target]:
    topic = StreamTopic(LIVE, Verb.DATA, RIG)
    if action in {Action.PUBLISH, Action.SUBSCRIBE}:
        return "a stream in a space", topic
    if action in _TESTBED:
        return "the testbed", None
    if action in _ORGANISATION:
        return "an organisation", RIG.organisation
    if action is Action.WITHDRAW:
        return "a company's grant", "company"
    return "a stream or equipment", RIG


def _routes() -> Iterator[str]:
    yield "| route | action |"
    yield "|---|---|"
    for route in routes.ROUTES:
        yield f"| `{route.name}` | {route.action or 'open to everybody'} |"


def _name(organisation: str, who: str) -> str:
    return f"{organisation} {who}"


def _rights() -> Rights:
    people = [
        Principal(
            _name(organisation, each), organisation, PrincipalKind.PERSON, frozenset({Role(each)})
        )
        for organisation, several in _COLUMNS.values()
        for each in several
        if each not in {*_MACHINES, *_RUNNERS}
    ]
    machines = [
        Principal(_name(organisation, name), organisation, PrincipalKind.MACHINE, scope=scope)
        for name, (organisation, scope) in _MACHINES.items()
    ]
    machines += [
        Principal(_name(organisation, name), organisation, PrincipalKind.RUNNER)
        for name, organisation in _RUNNERS.items()
    ]
    grant = Grant(1, "company", Entry(LIVE, RIG), Span())
    listing = Listing(RIG.owner, frozenset({"looker"}))
    return Rights(_PARTIES, (*people, *machines), (grant,), (), (listing,), _STREAM)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
