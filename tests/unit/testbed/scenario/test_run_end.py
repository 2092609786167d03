"""A prototype that never took part is told with its last lines apart from the sentence."""

from testbed.scenario.run_end import PrototypeRefused


def test_the_last_lines_stand_below_the_sentence_and_its_hint():
    sentence = "prototype 'a' ended with exit code 1 before the run began"
    refused = PrototypeRefused(sentence, name="a", lines=["Traceback", "SyntaxError: invalid"])
    assert str(refused).splitlines() == [
        sentence,
        "Its last lines:",
        "  Traceback",
        "  SyntaxError: invalid",
    ]
    absent = PrototypeRefused("it did not join", name="a", hint="does it connect?", lines=[])
    assert str(absent) == "it did not join (does it connect?)\nIt printed nothing."
    assert str(PrototypeRefused("it has ended", name="a")) == "it has ended"
