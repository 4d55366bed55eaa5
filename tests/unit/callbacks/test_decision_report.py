"""What a test says of its decisions."""

import csv

import pytest

from anomalib_dpclip.callbacks.decision_report import MAX_NAMED, Decision, mistakes, write_decisions


def decision(path, score, truth):
    return Decision(path, score, "anomalous" if score > 0.5 else "normal", truth)


def test_mistakes_by_hand():
    decisions = [
        decision("good/0.png", 0.1, "normal"),
        decision("good/1.png", 0.7, "normal"),
        decision("good/2.png", 0.9, "normal"),
        decision("hole/0.png", 0.4, "anomalous"),
        decision("hole/1.png", 0.8, "anomalous"),
    ]
    assert mistakes(decisions) == [
        "1 of 2 anomalous images missed:",
        "  0.400  hole/0.png",
        "2 of 3 normal images called anomalous:",
        "  0.900  good/2.png",
        "  0.700  good/1.png",
    ]


def test_paths_are_relative_to_the_data():
    assert mistakes([decision("/data/set/hole/0.png", 0.4999996, "anomalous")], "/data/set")[1:] == ["  0.4999996  hole/0.png"]


def test_no_mistake_is_said_too():
    assert mistakes([decision("a", 0.1, "normal"), decision("b", 0.9, "anomalous")]) == [
        "0 of 1 anomalous images missed.",
        "0 of 1 normal images called anomalous.",
    ]


def test_calling_everything_anomalous_is_said_plainly():
    said = mistakes([decision("a", 0.8, "normal"), decision("b", 0.9, "anomalous")])
    assert said[-1] == "Everything was called anomalous: at this threshold the model decides nothing, whatever F1Max says."


@pytest.mark.parametrize("truth", ["normal", "anomalous"])
def test_one_kind_of_image_has_one_heading(truth):
    said = mistakes([decision("a", 0.6, truth), decision("b", 0.4, truth)])
    assert [line for line in said if not line.startswith(" ")] == [said[0]]


def test_many_mistakes_are_cut_short():
    _, *lines = mistakes([decision(f"{index}.png", index / 100, "anomalous") for index in range(MAX_NAMED + 3)])
    assert lines == [*(f"  0.0{index}0  {index}.png" for index in range(MAX_NAMED)), "  and 3 more"]


def test_the_file_holds_all(tmp_path):
    decisions = [decision('with ", and \udcff.png', 0.1234567, "normal"), Decision("b", 0.5, "normal", "")]
    write_decisions(decisions, tmp_path / "x" / "decisions.csv")
    with (tmp_path / "x" / "decisions.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "score", "label", "truth"],
        ['with ", and \udcff.png', "0.123457", "normal", "normal"],
        ["b", "0.500000", "normal", ""],
    ]
