"""Settings of a prototype: address of the API, and the streams its names are bound to."""

from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from broker import namespace
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.pydantic_checks import validated_by
from broker.settings import CA, BusSettings, NamedFile, Settings
from testbed_sdk.program_time import ClockSetting

Bindings = Annotated[dict[str, StreamAddress], NoDecode]


class PrototypeSettings(Settings):
    """Settings of one deployment; broker and credential are in `BusSettings`."""

    model_config = SettingsConfigDict(env_prefix="TESTBED_", extra="ignore", frozen=True)

    api: str = Field(default="http://127.0.0.1:8600", description="URL of the testbed's API")
    space: Annotated[str, validated_by(namespace.checked_space)] = Field(
        default="live", description="space: live, or run-<id>"
    )
    inputs: Bindings = Field(
        default_factory=dict,
        description="streams of the inputs by name: name=organisation/equipment/stream,…",
    )
    outputs: Bindings = Field(
        default_factory=dict,
        description="streams of the outputs by name: name=organisation/deployment/stream,…",
    )
    ring_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=1024,
        description="bytes of output kept until the recorder confirms them",
    )
    input_batches: int = Field(
        default=1_000,
        ge=10,
        description="batches of an input that wait for a slow prototype; beyond them the oldest are"
        " dropped",
    )
    drain_s: float = Field(
        default=10.0, ge=0, description="seconds to wait at the end for the last marks"
    )

    run: str = Field(
        default="", description="mark of the scenario's run that started the program, which sets it"
    )
    clock: ClockSetting = Field(
        default=ClockSetting.WALL,
        description="clock of `now`, `sleep` and `timeout`: wall, the machine's; or run, that of"
        " the run in the space, as a scenario sets it",
    )

    @property
    def is_in_run(self) -> bool:
        """Whether a scenario has started the program and binds its names."""
        return bool(self.run) or self.clock is ClockSetting.RUN

    @field_validator("inputs", "outputs", mode="before")
    @classmethod
    def _reads_bindings(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        bindings = {}
        for part in filter(None, (entry.strip() for entry in value.split(","))):
            name, equals, address = part.partition("=")
            if not equals:
                raise ValueError(
                    f"{part!r} binds nothing: write name=organisation/equipment/stream"
                )
            try:
                bindings[name.strip()] = StreamAddress.parse(address.strip())
            except Invalid as exc:
                raise ValueError(str(exc)) from exc
        return bindings


class HttpSettings(Settings):
    """Credential and authority of a program that reads over HTTP alone, with no broker to name."""

    ca: NamedFile = Field(default=None, description=CA)
    credential: SecretStr = Field(
        default=SecretStr(""), description=BusSettings.model_fields["credential"].description
    )
