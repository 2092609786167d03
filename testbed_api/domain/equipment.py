"""Equipment: machines that are read, and deployments of prototypes that publish results."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.errors import Invalid
from broker.namespace import EquipmentAddress, EquipmentKind

LEVELS = ("enterprise", "site", "area", "line")
MOST_NAME = 200
MOST_TEXT = 400


@dataclass(frozen=True, slots=True)
class Equipment:
    """A machine, cell or line, or a deployment of a prototype.  site: its ISA-95 path by level."""

    address: EquipmentAddress
    name: str
    kind: EquipmentKind
    site: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    def __post_init__(self) -> None:
        checked_text(self.name, "name", MOST_NAME)
        checked_text(self.description, "description", MOST_TEXT)
        for level, name in self.site.items():
            if level not in LEVELS:
                raise Invalid(
                    f"{level[:40]!r} is no level of a site", hint=f"ISA-95 has {', '.join(LEVELS)}"
                )
            checked_text(name, level, MOST_NAME)


def checked_text(text: str, what: str, most: int) -> str:
    """Give `text` back if it is printable and not too long; raises Invalid."""
    if len(text) > most or not text.isprintable():
        raise Invalid(
            f"{what} {text[:60]!r} is not allowed", hint=f"printable characters, at most {most}"
        )
    return text
