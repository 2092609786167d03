"""The manifest of a prototype: each mistake is told at its line and column, all of them at once."""

import pytest

from broker.errors import Invalid
from broker.prototypes import file, manifest
from broker.prototypes.image import ArchiveImage, BuiltImage, RegistryImage
from broker.prototypes.manifest import RestartWhen
from broker.streams import Dtype, Signal

GOOD = """\
prototype: valve-watch
description: finds a closing valve
purpose: to find a closing valve before the pump runs dry
image: {build: .}
command: python prototype.py --limit 6
inputs:
  rig: factory/pump-rig/rig
outputs:
  score:
    signals:
      score: {range: [0, 100], description: distance from usual}
      anomaly: {dtype: bool}
      spectrum: {unit: bar, size: 64}
resources: {memory: 256 MiB, cpu: 0.5, pids: 64, disk: 64 MiB, log: 1 MiB}
environment: {LIMIT: "6.0"}
secrets: [api_key]
health: {starts_within: 20s, silent_for: 1min}
restart: {when: always, most: 3}
"""
DIGEST = f"sha256:{'0a' * 32}"


def read(text: str) -> manifest.PrototypeManifest:
    return file.read(text, "prototype.yaml").manifest


def mistakes(text: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        file.read(text, "p.yaml")
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


def with_(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_manifest_is_read_with_its_units_and_defaults():
    prototype = read(GOOD)
    assert str(prototype.inputs["rig"]) == "factory/pump-rig/rig"
    assert prototype.resources.memory == 256 * 2**20
    assert prototype.resources.log == 2**20
    assert prototype.health.silent_for_ns == 60 * 10**9
    assert prototype.restart.when is RestartWhen.ALWAYS
    least = read("prototype: a\nimage: {build: .}\ncommand: ./run\ninputs: {rig: a/b/c}\n")
    assert least.resources.memory == 256 * 2**20
    assert least.restart.when is RestartWhen.ON_FAILURE


def test_an_output_has_the_signals_that_the_program_registers():
    assert read(GOOD).signals("score") == {
        "score": Signal("score", low=0.0, high=100.0, description="distance from usual"),
        "anomaly": Signal("anomaly", Dtype.BOOL),
        "spectrum": Signal("spectrum", unit="bar", shape=(64,)),
    }


def test_a_manifest_that_is_dumped_is_read_again_as_an_equal_one():
    prototype = read(GOOD)
    fields = prototype.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert manifest.PrototypeManifest.model_validate(fields) == prototype
    assert fields["resources"]["memory"] == "256 MiB"


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("{registry: valve-watch:1.2}", RegistryImage),
        (f"{{registry: 'localhost:5000/acme/valve_watch@{DIGEST}'}}", RegistryImage),
        (f"{{registry: registry.example/acme/valve-watch:1.2@{DIGEST}}}", RegistryImage),
        ("{archive: images/valve-watch.tar}", ArchiveImage),
        ("{build: ., containerfile: docker/Dockerfile}", BuiltImage),
    ],
)
def test_an_image_is_of_a_registry_an_archive_or_a_build(written, kind):
    assert isinstance(read(with_("{build: .}", written)).image, kind)


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("valve-watch\n", "Valve Watch\n", "p.yaml:1:12: prototype: name 'Valve Watch' is not an"),
        ("description: f", "descripton: f", "p.yaml:2:1: descripton: there is no such field; did"),
        ("image: {build: .}\n", "", "p.yaml:1:1: image: this field is missing; such as image: {"),
        ("{build: .}", "{}", "p.yaml:4:1: image: say which image this is: registry, archive or"),
        ("{build: .}", "my:1", "p.yaml:4:8: image: it holds fields: registry, archive or build"),
        ("{build: .}", "{build: ., archive: a}", "p.yaml:4:1: image: `archive` and `build` excl"),
        ("{build: .}", "{build: ., tag: 1}", "p.yaml:4:19: image.tag: there is no such field"),
        ("{build: .}", "{build: /etc}", "p.yaml:4:16: image.build: '/etc' leads out of the"),
        ("{build: .}", "{archive: ../a}", "p.yaml:4:18: image.archive: '../a' leads out of the"),
        ("{build: .}", "{registry: my}", "p.yaml:4:19: image.registry: 'my' has neither a tag"),
        ("{build: .}", "{registry: My:1}", "p.yaml:4:19: image.registry: 'My:1' names no image"),
        ("{build: .}", "{registry: 'a@sha256:0'}", "p.yaml:4:19: image.registry: 'a@sha256:0' n"),
        ("python prototype", "python 'prototype", "p.yaml:5:10: command: \"python 'prototype"),
        ("python prototype.py --limit 6", "''", "p.yaml:5:10: command: the command is empty"),
        ("factory/pump-rig/rig", "pump-rig", "p.yaml:7:8: inputs.rig: 'pump-rig' is not the"),
        ("  rig: ", "  Rig: ", "p.yaml:7:3: inputs.Rig: name 'Rig' is not an id"),
        ("    signals:", "    signal:", "p.yaml:10:5: outputs.score.signal: there is no such"),
        ("[0, 100]", "[100, 0]", "p.yaml:11:7: outputs.score.signals.score: its range goes from"),
        ("[0, 100]", "[0]", "p.yaml:11:15: outputs.score.signals.score.range.1: this field is"),
        ("{range", "{rang", "p.yaml:11:15: outputs.score.signals.score.rang: there is no such"),
        ("dtype: bool", "dtype: real", "p.yaml:12:24: outputs.score.signals.anomaly.dtype: it"),
        ("dtype: bool", "dtype: bool, range: [0, 1]", "p.yaml:12:7: outputs.score.signals.anomal"),
        ("{dtype: bool}", "{dtype: string, size: 3}", "p.yaml:12:7: outputs.score.signals.anom"),
        ("unit: bar", "unit: bars", "p.yaml:13:24: outputs.score.signals.spectrum.unit: 'bars'"),
        ("size: 64", "size: 0", "p.yaml:13:35: outputs.score.signals.spectrum.size: it must be 1"),
        ("spectrum:", "_x:", "p.yaml:13:7: outputs.score.signals._x: signal name '_x' is not"),
        ("256 MiB", "1 MiB", "p.yaml:14:21: resources.memory: it must be 16 MiB to 16 GiB (not"),
        ("256 MiB", "1 TB", "p.yaml:14:21: resources.memory: 'TB' is no unit of this number; wr"),
        ("256 MiB", "much", "p.yaml:14:21: resources.memory: 'much' is no number; write one such"),
        ("cpu: 0.5", "cpu: 64", "p.yaml:14:35: resources.cpu: it must be 16 or less (not '64')"),
        ("pids: 64", "pids: 0", "p.yaml:14:46: resources.pids: it must be 1 or more (not '0')"),
        ("disk: 64 MiB", "disk: 11 GiB", "p.yaml:14:56: resources.disk: it must be 1 MiB to 10"),
        ("log: 1 MiB", "log: 1 kB", "p.yaml:14:69: resources.log: it must be 64 KiB to 100 MiB"),
        ("{LIMIT:", "{TESTBED_API:", "p.yaml:15:15: environment.TESTBED_API: TESTBED_API is a"),
        ("{LIMIT:", "{1:", "p.yaml:15:15: environment.1: '1' names no variable"),
        ("[api_key]", "[LIMIT]", "p.yaml:16:11: secrets.0: LIMIT is in `environment` too"),
        ("[api_key]", "[a, a]", "p.yaml:16:14: secrets.1: a stands twice"),
        ("[api_key]", "[a-b]", "p.yaml:16:11: secrets.0: 'a-b' names no variable"),
        ("20s", "20", "p.yaml:17:25: health.starts_within: '20' is no duration"),
        ("1min", "2h", "p.yaml:17:42: health.silent_for: it must be 1h at most (not '2h')"),
        ("always", "sometimes", "p.yaml:18:17: restart.when: it must be one of 'on-failure', 'al"),
        ("most: 3", "most: -1", "p.yaml:18:31: restart.most: it must be 0 or more (not '-1')"),
        ("secrets:", "controls:", "p.yaml:16:1: controls: a prototype cannot command a machine"),
    ],
)
def test_a_mistake_is_told_at_its_place(old, new, mistake):
    lines = mistakes(with_(old, new))
    assert [line[: len(mistake)] for line in lines].count(mistake) == 1, lines


def test_a_prototype_without_streams_is_refused():
    text = "prototype: a\nimage: {build: .}\ncommand: ./run\n"
    with pytest.raises(Invalid, match="neither inputs nor outputs"):
        read(text)


def test_all_mistakes_come_at_once():
    text = with_("valve-watch\n", "V\n").replace("256 MiB", "1 B").replace("[api_key]", "[LIMIT]")
    lines = mistakes(f"{text}controls: {{}}\nsecrets: []\n")
    places = [line.split(": ")[1].split(": ")[0] for line in lines]
    assert places == ["prototype", "resources.memory", "secrets.0", "controls", "secrets"]


@pytest.mark.parametrize("text", ["", "- a\n", "prototype: [\n", "a: &x 1\nb: *x\n"])
def test_what_is_no_manifest_is_refused_with_its_place(text):
    with pytest.raises(Invalid, match=r"p\.yaml:\d+:\d+: "):
        file.read(text, "p.yaml")


def test_the_schema_knows_every_field_of_the_file_and_no_control():
    schema = manifest.json_schema()
    assert set(schema["properties"]) == {
        line.split(":")[0] for line in GOOD.splitlines() if line[0] != " "
    }
    assert schema["$defs"]["PrototypeResources"]["properties"]["memory"]["default"] == "256 MiB"
    assert schema["$defs"]["HealthRule"]["properties"]["starts_within"]["default"] == "30s"
