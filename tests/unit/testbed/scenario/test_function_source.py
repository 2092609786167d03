"""A prototype's function is looked up in its module's source, which is not run."""

import pytest

from testbed.scenario import function_source

SOURCE = """\
import math as maths
raise SystemExit("it was run")
def detect(testbed): inner = 1
class Detector:
    def method(self): pass
if maths.pi:
    quick = detect
"""


@pytest.fixture
def base(tmp_path):
    (tmp_path / "pkg").mkdir()
    files = {
        "pkg/__init__.py": "",
        "pkg/deep.py": SOURCE,
        "own.py": SOURCE,
        "broken.py": "def a(:",
        "star.py": "from own import *",
        "lazy.py": "def __getattr__(name): return print",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "compiled.cpython-312.so").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    "reference",
    [
        *("own:detect", "own:Detector", "own:quick", "own:maths", "pkg.deep:detect"),
        *("star:whichever", "lazy:whichever", "compiled:detect", "json:whichever"),
    ],
)
def test_a_function_that_is_there_or_may_be_there_is_no_problem(base, reference):
    assert function_source.problem(base, reference) == ""


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("own:detct", "own.py defines no 'detct'; did you mean 'detect'?"),
        ("own:method", "own.py defines no 'method'; known are Detector, detect"),
        ("own:inner", "own.py defines no 'inner'"),
        ("pkg:detect", "pkg/__init__.py defines no 'detect': there is none at all"),
        ("pkg.dep:detect", "there is no file {base}/pkg/dep.py"),
        ("absent:detect", "there is no file {base}/absent.py, and no module 'absent' is installed"),
        ("broken:a", "broken.py:1: this is not Python: "),
    ],
)
def test_a_function_that_cannot_be_there_is_told(base, reference, sentence):
    assert sentence.format(base=base) in function_source.problem(base, reference)
