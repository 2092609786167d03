"""FMUs that cannot be run are refused in a sentence, before anything of them runs."""

import platform
import stat
import zipfile

import pytest

from broker.errors import Invalid, Unknown
from simulators.fmu import archive, description, model
from simulators.fmu.units import UnitDefinition, ucum
from tests.services import fmu_tank

MACHINE = platform.machine()


def fmu(folder, text=None, *, version="2", members=None, name="tank.fmu"):
    """An FMU whose binary is never loaded."""
    path = folder / name
    text = fmu_tank.description(version) if text is None else text
    members = {fmu_tank.library_path(version): b"no code"} if members is None else members
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("modelDescription.xml", text)
        for member, content in members.items():
            file.writestr(member, content)
    return path


def changed(old, new, version="2"):
    text = fmu_tank.description(version)
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize("version", ["2", "3"])
def test_outputs_become_signals_and_the_rest_is_known_by_name(tmp_path, version):
    read = description.read(fmu(tmp_path, version=version))
    level, steps, full = read.signals
    assert (level.name, level.unit, level.low, level.high) == ("level", "m", 0.0, 4.0)
    assert level.description == "water level"
    assert (steps.resolution, full.low, full.high) == (1.0, 0.0, 1.0)
    (inflow,) = read.input_signals
    assert (inflow.name, inflow.unit, inflow.low, inflow.high) == ("inflow_1", "m", -4.0, 4.0)
    assert [each.name for each in read.parameters] == [
        *("gain", "time_constant", "at", "fault", "note"),
    ]
    assert read.parameters[0].start == "1"
    assert read.left_out == ("text",)
    assert read.version == version
    assert read.step_s == fmu_tank.PERIOD_S


def test_an_array_is_left_out_by_name(tmp_path):
    text = changed(
        '<Int64 name="steps" valueReference="6" causality="output"/>',
        '<Float64 name="spectrum" valueReference="6" causality="output"><Dimension start="4"/>'
        "</Float64>",
        "3",
    )
    read = description.read(fmu(tmp_path, text, version="3"))
    assert read.left_out == ("spectrum", "text")


WRONG_TEXTS = {
    'version "2.0" is 1.0': (
        ('fmiVersion="2.0"', 'fmiVersion="1.0"'),
        "has FMI version '1.0'",
    ),
    "model exchange": (("<CoSimulation", "<ModelExchange"), "it is for ModelExchange"),
    "tool": (("<CoSimulation", '<CoSimulation needsExecutionTool="true"'), "inside the program"),
    "no guid": (('guid="{tank}"', ""), r"modelDescription\.xml:2: fmiModelDescription has no guid"),
    "reference": (('valueReference="1"', 'valueReference="-1"'), r"valueReference is '-1'"),
    "number": (('min="0" max="4"/>', 'min="low"/>'), r"min is 'low', no number"),
    "cut": (("</fmiModelDescription>", ""), r"modelDescription\.xml:\d+:\d+: no element found"),
    "encoding": (("UTF-8", "EBCDIC-X"), "modelDescription.xml"),
    "document type": (
        ("<fmiModelDescription", '<!DOCTYPE x [<!ENTITY a "b">]><fmiModelDescription'),
        "has a document type",
    ),
    "same signal": (('name="steps"', 'name="level["'), "would both be the signal 'level'"),
    "no outputs": (('causality="output"', 'causality="local"'), "has 0 outputs"),
}


@pytest.mark.parametrize("case", WRONG_TEXTS)
def test_a_description_that_cannot_be_run_is_refused_in_a_sentence(tmp_path, case):
    (old, new), sentence = WRONG_TEXTS[case]
    with pytest.raises(Invalid, match=sentence):
        description.read(fmu(tmp_path, changed(old, new)))


@pytest.mark.parametrize("text", ["<a>" * 100, f"<a>{'<b/>' * 1_000}"])
def test_a_description_of_too_many_elements_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setattr(description, "MOST_ELEMENTS", 1_000)
    with pytest.raises(Invalid, match="too many elements"):
        description.read(fmu(tmp_path, text))


def test_an_fmu_of_another_platform_says_what_it_has_and_what_is_needed(tmp_path):
    path = fmu(tmp_path, members={"binaries/win64/tank.dll": b"", "binaries/darwin64/x": b""})
    with pytest.raises(Invalid) as error:
        description.read(path, machine="x86_64")
    assert "has binaries for darwin64, win64" in error.value.message
    assert "needs binaries/linux64/tank.so" in error.value.message


def test_an_fmu_of_sources_has_no_platform(tmp_path):
    path = fmu(tmp_path, members={"sources/tank.c": b""})
    with pytest.raises(Invalid, match="has binaries for no platform"):
        description.read(path)


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "C:/out", "a\\..\\out"])
def test_a_member_outside_the_fmu_is_refused(tmp_path, name):
    with pytest.raises(Invalid, match="lies outside the FMU"):
        description.read(fmu(tmp_path, members={name: b""}))


def test_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("resources/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "tank.fmu"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(Invalid, match="is a link"):
        description.read(path)


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    path = fmu(tmp_path, members={"resources/zeros": bytes(1 << 20)})
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    with pytest.raises(Invalid, match="would unpack to"):
        description.read(path)


def test_a_member_that_is_larger_than_it_says_is_damaged(tmp_path):
    path = fmu(tmp_path, members={"resources/zeros": bytes(1 << 16)})
    content = path.read_bytes()
    size = (1 << 16).to_bytes(4, "little")
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, (1 << 10).to_bytes(4, "little")))
    with (
        archive.opened(path) as file,
        pytest.raises(Invalid, match=r"resources/zeros in .* damaged"),
    ):
        file.unpack(tmp_path / "out", lambda name: name.startswith("resources/"))


def test_what_is_no_fmu_is_said(tmp_path):
    with pytest.raises(Unknown, match="there is no FMU"):
        description.read(tmp_path / "none.fmu")
    other = tmp_path / "other.fmu"
    other.write_text("no archive")
    with pytest.raises(Invalid, match="is no FMU: File is not a zip file"):
        description.read(other)
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("readme.txt", "")
    with pytest.raises(Invalid, match=r"it has no modelDescription\.xml"):
        description.read(other)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("gian", 1, r"no parameter 'gian' \(did you mean 'gain'\?\)"),
        ("gain", 11, r"is 11 \(0 to 10\)"),
        ("gain", "much", "a number, as its type is Real"),
        ("gain", float("nan"), "a finite number"),
        ("fault", 0.5, "a whole number, as its type is Integer"),
    ],
)
def test_a_parameter_that_the_fmu_does_not_take_is_refused(tmp_path, name, value, sentence):
    with pytest.raises(Invalid, match=sentence):
        model.load(fmu(tmp_path), parameters={name: value})


def test_a_period_that_the_fmu_cannot_make_is_refused(tmp_path):
    text = changed("<CoSimulation", '<CoSimulation fixedInternalStepSize="0.02"', "3")
    path = fmu(tmp_path, text, version="3")
    with pytest.raises(Invalid, match=r"the period 0\.05 s is no multiple .*such as 0\.04 s"):
        model.load(path, period_s=0.05)
    assert model.load(path, period_s=0.06).period_s == 0.06
    assert model.load(path).period_s == 0.02
    with pytest.raises(Invalid, match="period 0 s"):
        model.load(path, period_s=0.0)


def test_units_of_modelica_become_ucum_and_unknown_ones_are_not_guessed():
    named = {"": "1", "degC": "Cel", "rpm": "{rev}/min", "1/min": "/min", "l/min": "L/min"}
    spelled = {"m/s^2": "m/s2", "kW*h": "kW.h", "bar": "bar", "N.m": "N.m"}
    for text, code in (named | spelled).items():
        assert ucum(text, {}) == code
    defined = {
        "work done": UnitDefinition({"kg": 1, "m": 2, "s": -2}),
        "foot of it": UnitDefinition({"m": 1}, factor=0.3048),
        "ratio of it": UnitDefinition(),
    }
    assert ucum("work done", defined) == "kg.m2.s-2"
    assert ucum("ratio of it", defined) == "1"
    assert ucum("foot of it", defined) is None
    assert ucum(None, {}) == "1"


def test_a_unit_without_a_code_stands_in_the_description(tmp_path):
    text = changed('name="metre of inflow"', 'name="another"')
    (inflow,) = description.read(fmu(tmp_path, text)).input_signals
    assert (inflow.unit, inflow.description) == ("1", "[unit of the FMU: metre of inflow]")
