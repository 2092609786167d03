"""The answer to a request that failed: problem+json (RFC 9457)."""

from typing import Annotated

from pydantic import Field

from broker.responses.base import ApiResponse


class ProblemResponse(ApiResponse):
    """An error: a stable code for programs, a sentence for people."""

    type: Annotated[str, Field(examples=["urn:connected-testbed:problem:unknown"])]
    title: Annotated[str, Field(examples=["unknown"])]
    status: Annotated[int, Field(examples=[404])]
    detail: Annotated[
        str,
        Field(
            description="what is wrong, in a sentence",
            examples=["there is no stream factory/pump-rig/rig"],
        ),
    ]
    code: Annotated[str, Field(description="stable: for programs", examples=["unknown"])]
    instance: Annotated[str, Field(examples=["/api/v1/…"])]
    hint: Annotated[str, Field(description="what would be right", examples=[""])] = ""
