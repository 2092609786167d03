"""A first project is right as it is written; manifest and scenario are held against each other."""

import pytest

from broker.clock import WallClock
from broker.errors import Invalid, Refused, Taken, Unknown
from broker.streams import Dtype, Signal
from testbed.prototype import init, project
from testbed.prototype.init import ProgramLanguage

LANGUAGES = list(ProgramLanguage)
MANIFEST, SCENARIO = "prototype.yaml", "scenario.yaml"
SCORE = {"score": Signal("score"), "anomaly": Signal("anomaly", Dtype.BOOL)}


@pytest.fixture
def folder(tmp_path):
    return init.write(tmp_path, "valve-watch", "python").folder


def change(folder, name, old, new):
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refused(folder) -> str:
    with pytest.raises(Refused) as caught:
        project.load(folder, WallClock())
    return caught.value.message.replace(f"{folder}/", "")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_first_project_is_right_as_it_is_written(tmp_path, language):
    written = init.write(tmp_path, "valve-watch", language)
    on_disk = {str(each.relative_to(written.folder)) for each in written.folder.rglob("*.*")}
    assert {*written.files} | {".github"} == on_disk | {"Containerfile"}
    read = project.load(written.folder, WallClock())
    assert read.manifest.name == read.scenario.scenario.name == "valve-watch"
    own = [written.folder / each for each in written.files if not each.endswith("schema.json")]
    texts = [each.read_text() for each in own]
    words = ("PROTOTYPE", "COMMAND", "PROGRAM", "WHEEL")
    assert not [text for text in texts for word in words if word in text]


@pytest.mark.parametrize("name", ["Valve", "valve_watch", "", "../valve", "rig", "coordinator"])
def test_a_name_that_is_none_is_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(Invalid):
        init.write(tmp_path, name, "python")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(folder):
    (folder / "prototype.py").write_text("mine")
    with pytest.raises(Taken, match="already"):
        init.write(folder.parent, "valve-watch", "python")
    assert (folder / "prototype.py").read_text() == "mine"


def test_an_unknown_language_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(Invalid, match="python, javascript"):
        init.write(tmp_path, "valve-watch", "cobol")


def test_mistakes_in_manifest_and_scenario_come_together(folder):
    change(folder, MANIFEST, "256 MiB", "1 B")
    change(folder, SCENARIO, "pump-rig}", "pump-rag}")
    lines = refused(folder).splitlines()
    assert [line.split(": ")[0].strip() for line in lines if line[0] == " "] == [
        "prototype.yaml:15:21",
        "scenario.yaml:7:16",
    ]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("  rig: f", "  pump: f", "the manifest's input 'pump' is missing"),
        ("  score:\n    des", "  alarm:\n    des", "the manifest has no output 'score'"),
        ("prototype: valve-watch", "prototype: other", "'other' is not among them"),
    ],
)
def test_a_scenario_that_disagrees_with_the_manifest_is_told_where(folder, old, new, sentence):
    change(folder, MANIFEST, old, new)
    message = refused(folder)
    assert sentence in message
    assert "scenario.yaml:1" in message


def test_a_prototype_that_is_renamed_in_the_scenario_is_told_before_what_follows(folder):
    change(folder, SCENARIO, "  valve-watch:\n", "  valve-watcher:\n")
    first, sentence, *others = refused(folder).splitlines()
    assert first == "1 mistake in the scenario:"
    assert "prototypes: the manifest's prototype 'valve-watch' is not among them" in sentence
    assert "did you mean 'valve-watcher'?" in sentence
    assert "there is no stream 'valve-watch/score'" in "\n".join(others)


def test_an_expectation_on_a_signal_that_the_manifest_does_not_have_is_told(folder):
    change(folder, SCENARIO, "valve-watch/score/anomaly", "valve-watch/score/anomly")
    message = refused(folder)
    assert "valve-watch/score has no signal 'anomly'; did you mean 'anomaly'?" in message
    assert "scenario.yaml:" in message


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("{build: .}", "{build: image}", "image.build: there is no folder"),
        ("{build: .}", "{build: ., containerfile: D}", "image.containerfile: there is no file"),
        ("{build: .}", "{archive: my.tar}", "image.archive: there is no file"),
        ("python prototype.py", "python other.py", "command: there is no file"),
    ],
)
def test_a_file_that_the_manifest_names_must_be_there(folder, old, new, sentence):
    change(folder, MANIFEST, old, new)
    assert sentence in refused(folder)


def test_a_folder_without_a_manifest_or_a_scenario_says_how_to_get_one(tmp_path, folder):
    with pytest.raises(Unknown, match="testbed prototype init"):
        project.load_manifest(tmp_path)
    (folder / SCENARIO).unlink()
    assert "there is no scenario.yaml" in refused(folder)


def test_what_the_program_registers_is_compared_with_the_manifest(folder):
    manifest = project.load_manifest(folder).manifest
    stream = "valve-watch/score"
    assert project.spec_differences(manifest, {stream: SCORE}) == []
    other = {"score": Signal("score", unit="bar"), "anomaly": Signal("anomaly"), "x": Signal("x")}
    assert project.spec_differences(manifest, {stream: other}) == [
        "output 'score': the type of 'anomaly' is bool in the manifest, float64 in the program",
        "output 'score': the unit of 'score' is 1 in the manifest, bar in the program",
        "output 'score': the program has a signal 'x', the manifest has not",
    ]
    (sentence,) = project.spec_differences(manifest, {})
    assert "never published the output 'score'" in sentence


def test_a_range_that_the_manifest_leaves_out_is_the_programs_own(folder):
    ranged = SCORE | {"score": Signal("score", low=0.0)}
    manifest = project.load_manifest(folder).manifest
    assert project.spec_differences(manifest, {"valve-watch/score": ranged}) == []
    change(folder, MANIFEST, "score: {des", "score: {range: [0, 9], des")
    manifest = project.load_manifest(folder).manifest
    (sentence,) = project.spec_differences(manifest, {"valve-watch/score": ranged})
    assert sentence.endswith("is 0 to 9 in the manifest, 0 to … in the program")
