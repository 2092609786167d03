"""Settings of a runner, from TESTBED_… variables."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from broker import namespace
from broker.settings import Settings

AUTO = "auto"
"""The best product that is here."""
EVERYBODY = "*"
"""All organisations."""


class RunnerSettings(Settings):
    """Folder of a runner, and what it gives to deployments."""

    model_config = SettingsConfigDict(env_prefix="TESTBED_", extra="ignore", frozen=True)

    runner_folder: Path = Field(
        default=Path("testbed-runner"),
        description="folder of a runner: its key and credential, images, and what it is to report",
    )
    runner_product: str = Field(
        default=AUTO,
        pattern="^(auto|process|docker)$",
        description="product that runs the programs: docker; process, for plain processes; or auto,"
        " for Docker where its engine answers and this is root, else plain processes",
    )
    runner_docker: str = Field(
        default="unix:///var/run/docker.sock",
        pattern="^unix://",
        description="socket of Docker's engine, which is on this machine",
    )
    runner_cpu: float | None = Field(
        default=None,
        gt=0,
        description="processor cores that a runner gives to deployments (default: all)",
    )
    runner_memory_mib: int | None = Field(
        default=None,
        gt=0,
        description="MiB of memory that a runner gives to deployments (default: half of the"
        " machine's)",
    )
    runner_trust: Annotated[str, Field(max_length=4_000)] = Field(
        default="",
        description="organisations, with commas between them, whose programs a runner with plain"
        " processes runs besides its own's; * for all",
    )

    def trusted(self, own: str) -> frozenset[str] | None:
        """The organisations of `runner_trust` and one's own; None for all.

        Raises Invalid for a text that names none.
        """
        words = {word.strip() for word in self.runner_trust.split(",")} - {""}
        if EVERYBODY in words:
            return None
        return frozenset(namespace.checked_id(word, "organisation") for word in words | {own})
