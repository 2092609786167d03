"""The rating of a prototype: what it says in sentences."""

import dataclasses

from testbed.demo.rating import Rating
from testbed_scenarios.detection import Detection

GOOD = Rating(
    detection=Detection(hits=135, missed=5, false=3, quiet=657),
    has_labels=True,
    rows_played=800,
    rows_answered=800,
    published=1_600,
)


def rating(**changed):
    return dataclasses.replace(GOOD, **changed)


def test_how_good_the_prototype_was_is_said_in_numbers_of_rows():
    assert GOOD.quality == (
        "F1 0.971. Of 140 rows with a fault it flagged 135 and missed 5; of its 138 alarms 3 were"
        " false."
    )
    alone = rating(detection=Detection(hits=1, false=1, quiet=1)).quality
    assert alone.endswith("of its 2 alarms 1 was false.")
    single = rating(detection=Detection(hits=1, quiet=1)).quality
    assert single.endswith("of its 1 alarm 0 were false.")
    meaning = " ".join(GOOD.meaning)
    assert "1 is perfect, 0 has found nothing" in meaning
    assert "always on has 0.30" in meaning
    assert "of 100 rows with a fault it overlooked 3.6" in meaning
    assert "of 100 rows without a fault it flagged 0.5" in meaning


def test_a_prototype_that_published_nothing_is_not_scored():
    silent = rating(published=0, rows_answered=0, detection=Detection(missed=140, quiet=660))
    assert silent.quality == "Not scored: it published nothing."
    assert silent.meaning == ()
    assert silent.as_json()["f1"] == 0.0


def test_rows_without_an_answer_are_counted():
    assert GOOD.coverage == ""
    assert rating(rows_answered=0).coverage == ""
    few = "27 of 800 rows have an answer; the other 773 count as no alarm."
    assert rating(rows_answered=27).coverage == few
    assert rating(rows_answered=799).coverage.endswith("the other 1 counts as no alarm.")


def test_of_a_detector_that_learns_it_is_said_why_rows_have_no_answer():
    assert rating(rows_answered=400, learns_rows=400).coverage == (
        "400 of 800 rows have an answer: the demo's detector learns what is normal from the first"
        " 400 rows, and gives none for them. A row without an answer counts as no alarm."
    )


def test_data_without_faults_have_no_f1_and_say_so():
    quiet = rating(detection=Detection(false=2, quiet=5))
    assert "no row of the data has a fault, and it raised 2 false alarms" in quiet.quality
    assert quiet.meaning == ()
    assert rating(detection=Detection(), has_labels=False).quality.startswith("Unknown")


def test_an_f1_that_is_wanted_is_reached_or_not():
    assert GOOD.sentence_about(0.9) == "F1 of 0.9 is reached."
    assert GOOD.sentence_about(0.98) == "F1 of 0.98 is not reached."
    assert not rating(detection=Detection()).reaches(0.1)
