"""Answers about gateways and their enrolment."""

from typing import Annotated

from pydantic import Field

from broker.responses.base import ApiResponse, Instant

_FINGERPRINT = "9F86:D081:884C:7D65:9A2F:EAA0:C55A:D015"


class EnrolmentCodeResponse(ApiResponse):
    """A one-time code, which is shown this once."""

    code: Annotated[str, Field(examples=["K7QX2-9MWRT-HCV4N-PD8YB"])]
    expires: Instant


class NewGatewayResponse(ApiResponse):
    """An enrolled gateway with its credential, which is shown this once."""

    credential: Annotated[str, Field(examples=["gateway-5f0c9a1b2c3d.pK0v…"])]
    principal: Annotated[str, Field(examples=["gateway-5f0c9a1b2c3d"])]
    equipment: Annotated[str, Field(examples=["factory/pump-rig"])]
    fingerprint: Annotated[str, Field(description="of its key", examples=[_FINGERPRINT])]


class GatewayResponse(ApiResponse):
    """The gateway of an equipment."""

    principal: Annotated[str, Field(examples=["gateway-5f0c9a1b2c3d"])]
    since: Instant
    fingerprint: Annotated[
        str | None, Field(description="null without enrolment", examples=[_FINGERPRINT])
    ]
    code_made_by: Annotated[str | None, Field(examples=["fay"])]


class FormerGatewayResponse(ApiResponse):
    """A gateway that is let in no more."""

    principal: Annotated[str, Field(examples=["gateway-5f0c9a1b2c3d"])]
    until: Instant
    ended_by: Annotated[
        str | None,
        Field(description="who locked it out; null where its time was over", examples=["fay"]),
    ]


class GatewaysResponse(ApiResponse):
    """The gateways of an equipment: one, or none."""

    items: list[GatewayResponse]
    former: Annotated[
        FormerGatewayResponse | None,
        Field(description="the last that is let in no more; null while one is, or none ever was"),
    ]


class GatewayProcessResponse(ApiResponse):
    """A process that is connected to the broker as the gateway of an equipment."""

    principal: Annotated[str, Field(examples=["gateway-5f0c9a1b2c3d"])]
    client_id: Annotated[
        str,
        Field(
            description="names the process",
            examples=[
                "gateway-5f0c9a1b2c3d--gateway-factory-pump-rig--press-pc-0f3a9c11d2e4-19ab03c5d10"
            ],
        ),
    ]
    host: Annotated[str, Field(description="name of its machine", examples=["press-pc"])]
    address: Annotated[str, Field(description="as the broker sees it", examples=["10.0.0.7"])]
    since: Instant


class GatewayProcessesResponse(ApiResponse):
    """The processes that are connected as gateways of an equipment: one, or none."""

    items: list[GatewayProcessResponse]
