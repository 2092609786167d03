"""The two organisations of a demo, the grant between them, and credentials of machines."""

from collections.abc import Mapping
from typing import Any

from broker import api_client
from broker.responses.credentials import NewPrincipalResponse
from testbed.demo.plan import RIG, SCORE, SPACE, VISITOR

PROTOTYPE = "detector"
"""The principal of the prototype, whichever program it is."""


async def create(url: str, administrator: api_client.Api) -> tuple[str, str, dict[str, str]]:
    """Create a factory that grants its rig to a company.

    administrator: connection that may create organisations, and reads no stream of them.
    Returns the credentials of the owners of factory and company, and the credentials of the
    machines by principal, each with exactly the streams that it needs.
    """
    rig, score, visitors = (
        {"space": SPACE, "stream": str(stream)} for stream in (RIG, SCORE, VISITOR)
    )
    factory = await administrator.create_organisation(
        RIG.organisation, owner="factory-owner", kind="partner"
    )
    company = await administrator.create_organisation(
        SCORE.organisation, owner="company-owner", kind="company"
    )
    async with api_client.connect(url, factory) as owner:
        grant = {"company": SCORE.organisation, "streams": [rig], "purpose": "find its faults"}
        await owner.request("POST", "/grants", json=grant)
        credentials = await _create_credentials(owner, {"gateway": {"writes": [rig]}})
    async with api_client.connect(url, company) as owner:
        rights = {
            PROTOTYPE: {"reads": [rig], "writes": [score]},
            "visitor": {"reads": [rig], "writes": [visitors]},
            "observer": {"reads": [rig, score, visitors]},
        }
        credentials |= await _create_credentials(owner, rights)
    return factory, company, credentials


async def _create_credentials(
    owner: api_client.Api, rights: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Create a credential for each principal with its rights; the credentials by principal."""
    credentials = {}
    for principal, streams in rights.items():
        body = {"principal": principal} | dict(streams)
        created = await owner.send("POST", "/credentials", NewPrincipalResponse, body)
        credentials[principal] = created.credential
    return credentials
