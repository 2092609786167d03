"""Whatever the OpenAPI document allows, and what it does not: nothing breaks, all is documented."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.probes import routes
from tests.probes.backends import BACKENDS
from tests.probes.cast import Cast
from tests.probes.results import Found
from tests.probes.routes import DOCUMENT, Route

ENDLESS = "GET /streams/{organisation}/{equipment}/{stream}/live"
"""Read until somebody leaves: asked by the other probes."""
ROUTES = {each.name: each for each in routes.ROUTES if each.name != ENDLESS}
WHO = ("anonymous", "company-developer", "institute-owner", "factory-owner")
"""Nobody, who was granted the rig, who runs the testbed, whose rig it is."""
WAYS = (
    (GenerationMode.POSITIVE, True),
    (GenerationMode.NEGATIVE, True),
    (GenerationMode.NEGATIVE, False),
)
"""Right and wrong ones; about what is there, or about anything."""


@dataclass
class Fuzz:
    """The same questions of everybody; that a route lets somebody through is for `test_routes`."""

    url: str
    cast: Cast
    findings: Found
    examples: int

    def ask_all(self) -> None:
        """All routes, what ends something last, a part before its whole; on a thread."""
        with requests.Session() as session:
            schema = schemathesis.openapi.from_dict(deepcopy(DOCUMENT))
            schema.config.update(base_url=self.url)
            every = [each.ok() for each in schema.get_all_operations()]
            every.sort(key=lambda each: -each.path.count("/"))
            for operation in sorted(every, key=lambda each: each.method.upper() == "DELETE"):
                route = ROUTES.get(operation.label.replace(routes.ROOT, "", 1))
                for mode, is_there in WAYS if route else ():
                    about = _there(route, self.cast) if is_there else None
                    cases = operation.as_strategy(mode, path_parameters=about or None)
                    self._ask(session, route, cases)

    def _ask(self, session: requests.Session, route: Route, cases) -> None:
        @settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def ask(case: schemathesis.Case) -> None:
            for who in WHO:
                self._judge(who, route, case, session)

        with suppress(Unsatisfiable):  # what takes no parameter cannot be asked wrongly
            ask()

    def _judge(
        self, who: str, route: Route, case: schemathesis.Case, session: requests.Session
    ) -> None:
        credential = self.cast.credentials[who]
        headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        status = (answer := case.call(session=session, headers=headers)).status_code
        documented = DOCUMENT["paths"][route.path][route.method.lower()]["responses"]
        self.findings.probes += 1
        if status >= 500 or str(status) not in documented:
            description = f"answered {status}: {answer.text[:200]}"
            self.findings.fault(f"{who} asks {case.as_curl_command()[:400]}", description)


def _there(route: Route, cast: Cast) -> Mapping[str, str]:
    """The parameters of something that there is."""
    path = routes.questions(route, cast)[0].path.partition("?")[0]
    named = zip(route.path.split("/"), path.split("/"), strict=True)
    return {name[1:-1]: value for name, value in named if name.startswith("{")}


@pytest.mark.timeout(3_600)
async def test_whatever_the_schema_allows_nothing_breaks(tmp_path, cast, findings, share, request):
    """share: with 1, at full size, many times the examples."""
    async with BACKENDS["nats"](tmp_path, request) as server:
        fuzz = Fuzz(server.url, cast, findings, examples=2 if share > 1 else 20)
        await asyncio.to_thread(fuzz.ask_all)
    findings.judge()
