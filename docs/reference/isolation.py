"""Write the page of what a container is held to, from the tables that the tests run.

`python docs/reference/isolation.py` writes isolation.md beside this file; a test holds them equal.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
sys.path.insert(0, str(CHECKOUT))  # the noisy programs belong to the tests

from testbed_runner import abuses, hardening  # noqa: E402
from testbed_runner.port import ProductName  # noqa: E402
from tests.probes import abuses as noisy  # noqa: E402

HEAD = """# What a prototype in a container is held to

A deployment on a site with Docker runs in a container that reaches the API and the broker and
nothing else. This page is written by `python docs/reference/isolation.py` from the tables that are
tried, and a test holds it equal. [Decision 0116][why] says why it is so, and
[the security page](../security.md) where trust ends.

Before a site takes work, its runner starts a container of its own there, a canary, looks at it
while it runs, and has it try the quiet programs below. If a protection is missing or a try
achieves its aim, the site takes no work, and says which.

[why]: ../decisions/0116-what-a-container-may-is-asked-for-tried-and-seen.md
"""
READ = """Each is read from a running container: from what the engine says of it, or from what the
kernel shows of its program. The numbers are those of the CIS Docker Benchmark 1.6.
"""
QUIET = """programs try what a container must not achieve; none achieves it
(`tests/probes/test_container_abuse.py`). The same programs without these protections achieve most
of it, which the test shows too.
"""
NOISY = """more take all that they can. Another container that prints something each 50 ms is never
held up for a second meanwhile, and where a program runs into a limit, the deployment says so.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(
        (
            HEAD,
            "## Protections",
            "",
            READ,
            *_table(
                ("protection", "for", "CIS", "read from", "on"),
                (
                    (each.name, each.sentence, each.cis, each.seen, _products(each))
                    for each in hardening.PROTECTIONS
                ),
            ),
            "",
            "## What was tried",
            "",
            f"{len(abuses.ABUSES)} {QUIET}",
            *_table(("program", "must not"), ((each.name, each.aim) for each in abuses.ABUSES)),
            "",
            f"{len(noisy.NOISES)} {NOISY}",
            *_table(
                ("program", "must not", "is said to have hit"),
                ((each.name, each.harm, ", ".join(sorted(each.hits))) for each in noisy.NOISES),
            ),
            "",
        )
    )


def _products(protection: hardening.Protection) -> str:
    both = {ProductName.DOCKER: "Docker", ProductName.SWARM: "Swarm"}
    return ", ".join(name for product, name in both.items() if product in protection.products)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
