"""Options of a run beside its scenario, checked before anything runs."""

from dataclasses import dataclass
from pathlib import Path

from broker.errors import Invalid
from testbed.client import api
from testbed.scenario import loading, new_folder, whole_file
from testbed.scenario.loading import LoadedScenario


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRun:
    """The options of `testbed run`.

    is_virtual: virtual time, else wall time at a `speed`, 1 if None.  seed: None for those of the
    file.  junit, report: files.  folder: a new one for data and logs, None for a temporary one,
    which stays if `keeps`.  server: URL of an API that the runs are handed over to.
    """

    is_virtual: bool
    speed: float | None = None
    seed: int | None = None
    junit: Path | None = None
    report: Path | None = None
    folder: Path | None = None
    keeps: bool = False
    server: str | None = None
    as_json: bool = False

    @property
    def pace(self) -> float | None:
        """Seconds of the scenario in a second; None for virtual time."""
        return None if self.is_virtual else self.speed or 1.0

    def check(self, loaded: LoadedScenario) -> None:
        """Raise Invalid for files that cannot be written, and for what the scenario cannot do.

        Raises Taken for a folder that is not empty.
        """
        for path, option in ((self.junit, "--junit"), (self.report, "--report")):
            if path is not None:
                whole_file.check(path, option=option)
        if self.folder is not None:
            new_folder.check(self.folder)
        if self.is_virtual and self.speed is not None:
            raise Invalid("--fast and --speed exclude one another", hint="leave one out")
        if self.server is not None:
            api.settings_for(self.server)
        loading.check_mode(loaded, is_virtual=self.is_virtual)
