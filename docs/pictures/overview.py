"""Draw the picture in the README: from a factory's machine to a small firm's prototype.

`python docs/pictures/overview.py` writes overview.svg beside this file; a test holds them equal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 960, 446
SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    ' aria-labelledby="title">'
)
TITLE = (
    "A gateway reads a machine and publishes batches; the recorder stores them and marks what is"
    " safe; a prototype reads what it was granted."
)
STYLE = """
    text { font: 14px system-ui, sans-serif; fill: #1c2733 }
    .zone { fill: #f3f6f9; stroke: #d5dde5 }
    .zone-name { font-size: 13px; font-weight: 600; fill: #5a6b7b; letter-spacing: .04em }
    .box { fill: #fff; stroke: #5a6b7b; stroke-width: 1.2 }
    .ours { fill: #e3f0ff; stroke: #1f6fc4; stroke-width: 1.6 }
    .name { font-weight: 600 }
    .note, .label { font-size: 12px; fill: #46586a }
    .line { fill: none; stroke: #1f6fc4; stroke-width: 2 }
    .back { fill: none; stroke: #b3541e; stroke-width: 1.6; stroke-dasharray: 5 4 }
    .head { fill: #1f6fc4 } .back-head { fill: #b3541e }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .zone { fill: #161d26; stroke: #2c3947 }
      .zone-name { fill: #93a4b5 } .box { fill: #0d1319; stroke: #7d8fa0 }
      .ours { fill: #10263f; stroke: #58a6ff } .note, .label { fill: #a9b8c6 }
      .line { stroke: #58a6ff } .head { fill: #58a6ff }
      .back { stroke: #f0883e } .back-head { fill: #f0883e }
    }
"""


@dataclass(frozen=True)
class Box:
    """A rectangle with a name and lines below it; sizes in pixels."""

    x: int
    y: int
    width: int
    height: int
    name: str
    notes: Sequence[str] = ()
    ours: bool = True

    def svg(self) -> Iterator[str]:
        """Its elements."""
        kind = "ours" if self.ours else "box"
        yield (
            f'<rect class="{kind}" x="{self.x}" y="{self.y}" width="{self.width}"'
            f' height="{self.height}" rx="8"/>'
        )
        middle = self.x + self.width // 2
        top = self.y + (self.height - 17 * len(self.notes)) // 2 + 5
        yield text(middle, top, self.name, "name")
        for row, note in enumerate(self.notes, start=1):
            yield text(middle, top + 17 * row, note, "note")


def text(x: int, y: int, words: str, kind: str, anchor: str = "middle") -> str:
    """Words at a place."""
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def zone(x: int, width: int, name: str) -> list[str]:
    """A column of the picture."""
    return [
        f'<rect class="zone" x="{x}" y="12" width="{width}" height="{HEIGHT - 24}" rx="12"/>',
        text(x + 16, 36, name, "zone-name", "start"),
    ]


def arrow(points: str, words: str, x: int, y: int, *, back: bool = False) -> list[str]:
    """A line along `points`, with its words at (x, y); back: of marks, against the data."""
    kind = "back" if back else "line"
    return [
        f'<polyline class="{kind}" points="{points}" marker-end="url(#{kind}-head)"/>',
        text(x, y, words, "label"),
    ]


def marker(kind: str, fill: str) -> str:
    """The head of an arrow."""
    return (
        f'<marker id="{kind}-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
        f' markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path class="{fill}" d="M0 0 8 4 0 8z"/></marker>'
    )


ZONES = (
    (12, 262, "FACTORY SITE"),
    (286, 446, "THE TESTBED"),
    (744, 204, "SMALL FIRM"),
)
BOXES = (
    Box(32, 70, 222, 62, "machine", ("OPC UA server or MQTT sensors",), ours=False),
    Box(
        32,
        196,
        222,
        80,
        "gateway",
        ("reads what the mapping names;", "its spool keeps the unmarked"),
    ),
    Box(32, 330, 222, 80, "engineer", ("registers, grants,", "pauses, ends"), ours=False),
    Box(316, 70, 150, 62, "recorder", ("stores and marks",)),
    Box(556, 70, 156, 62, "store and ledger", ("InfluxDB or DuckDB",)),
    Box(316, 196, 150, 80, "broker", ("NATS over MQTT,", "a right per topic")),
    Box(526, 330, 186, 80, "API", ("rights, history, live,", "audit chain")),
    Box(766, 196, 160, 80, "prototype", ("the same container:", "simulated, recorded, live")),
    Box(766, 330, 160, 80, "developer", ("asks for streams,", "reads and plots"), ours=False),
)


def arrows() -> Iterator[str]:
    """Solid lines for data and requests, dashed ones for marks, which run against the data."""
    yield from arrow("143,132 143,196", "samples", 174, 168)
    yield from arrow("254,226 316,226", "batches", 285, 218)
    yield from arrow("316,256 254,256", "marks", 285, 272, back=True)
    yield from arrow("376,196 376,132", "batches", 346, 168)
    yield from arrow("406,132 406,196", "marks", 430, 168, back=True)
    yield from arrow("466,101 556,101", "samples", 511, 93)
    yield from arrow("466,236 766,236", "live", 540, 228)
    yield from arrow("634,132 634,330", "history", 660, 304)
    yield from arrow("254,370 526,370", "rights, equipment", 390, 362)
    yield from arrow("766,370 712,370", "", 0, 0)
    yield from arrow("846,330 846,276", "", 0, 0)


def picture() -> str:
    """The whole picture as SVG."""
    lines = [
        SVG,
        f"<title id='title'>{TITLE}</title>",
        f"<style>{STYLE}</style>",
        f"<defs>{marker('line', 'head')}{marker('back', 'back-head')}</defs>",
        *(line for column in ZONES for line in zone(*column)),
        *arrows(),
        *(line for box in BOXES for line in box.svg()),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture())
