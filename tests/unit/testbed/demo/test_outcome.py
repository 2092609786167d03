"""Sentences about a prototype in a demo: each kind of failure has its own."""

import dataclasses
import re

import pytest

from broker.streams import Dtype
from testbed.demo import outcome
from testbed.demo.outcome import Publication
from testbed.processes.program_end import PrototypeOutcome

RAN = PrototypeOutcome(exit_code=None, was_killed=False, printed=1, is_cut=False, last_lines=("x",))
LABELLED = Publication(
    samples=800, dtypes={"anomaly": Dtype.BOOL}, labels=800, matching=800, ends=True
)


def problems(ran=RAN, published=LABELLED, refused=(), **changed):
    return outcome.problems(ran, dataclasses.replace(published, **changed), refused)


def ended(exit_code, *lines):
    return dataclasses.replace(RAN, exit_code=exit_code, last_lines=lines)


def test_a_prototype_that_labels_every_row_has_no_problem():
    assert problems() == ()
    assert outcome.notes(RAN, LABELLED) == ()
    assert problems(dtypes={"anomaly": Dtype.INT64}) == ()


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "was ended by SIGKILL"),
        (-40, "was ended by signal 40"),
    ],
)
def test_one_that_ended_early_says_how_and_shows_its_last_lines(exit_code, words):
    (sentence,) = problems(ended(exit_code, "Traceback", "ValueError: no"))
    assert f"It {words} before the machine" in sentence
    assert sentence.endswith("Its last lines:\n  Traceback\n  ValueError: no")
    assert problems(ended(exit_code))[0].endswith("It printed nothing.")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"samples": 0, "dtypes": {}}, "published nothing .*did not register that stream"),
        ({"samples": 0}, "published nothing on company/detector/score: publish a bool"),
        ({"dtypes": {"score": Dtype.FLOAT64}}, "published score on .*, and no signal `anomaly`"),
        ({"dtypes": {}}, "samples without a spec"),
        ({"dtypes": {"anomaly": Dtype.FLOAT64}}, "`anomaly` is float64: publish a bool"),
        ({"matching": 0, "ends": False}, "None of its 800 labels has the time stamp of a row"),
    ],
)
def test_an_output_that_cannot_be_compared_says_why(changed, words):
    (sentence,) = problems(**changed)
    assert re.search(words, sentence), sentence


def test_what_it_was_refused_is_named():
    (sentence,) = problems(refused=["POST /streams/company/detector/other/specs"])
    assert "may publish company/detector/score alone" in sentence
    assert "POST /streams/company/detector/other/specs" in sentence


def test_what_is_only_worth_knowing_is_a_note():
    slow = dataclasses.replace(LABELLED, matching=700, ends=False)
    behind, others = outcome.notes(RAN, slow)
    assert "not labelled the last row" in behind
    assert others.startswith("100 of its labels")
    stubborn = dataclasses.replace(RAN, was_killed=True, is_cut=True, printed=12_345)
    killed, cut = outcome.notes(stubborn, LABELLED)
    assert "was killed" in killed
    assert "12,345 lines" in cut


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ModuleNotFoundError: No module named 'testbed_sdk'", "/opt/python has it"),
        ("ModuleNotFoundError: No module named 'numpy'", "not have numpy; /opt/python has the SDK"),
        ("ModuleNotFoundError: No module named 'torch.nn'", "Python does not have torch; "),
        ("/usr/bin/python: No module named detector", "Python does not have detector; "),
        ("broker.errors.Unknown: there is no company/detector/x", "the output `score`"),
        ("SyntaxError: invalid syntax", "where-your-program-runs.md"),
    ],
)
def test_the_hint_is_about_what_the_prototype_said(line, words):
    assert words in outcome.hint(["Traceback", line], "/opt/python")
