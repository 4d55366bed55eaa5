"""Results on disk: one JSON file a job, the CSV files made of them, and what becomes of older rows."""

import math

import pandas as pd
import pytest
from tests.unit.benchmark.results import PROVENANCE, ROW, write_results

from anomalib_dpclip.benchmark.rows import (
    COLUMNS,
    Result,
    beside,
    identity_of,
    jobs_folder,
    read_beside,
    read_provenance,
    read_results,
    read_rows,
    set_aside,
    take_up,
    write_result,
    write_tables,
)


def test_a_row_is_read_as_it_was_written(tmp_path):
    odd = {"category": "NA", "label": 'quoted "a, b"', "reason": "", "image_AUROC": 0.1 + 0.2, "pixel_AP": None, "draw": 2}
    rows = read_rows(write_results(tmp_path / "rows.csv", odd, {"status": "failed", "reason": "one\ntwo"}))
    assert list(rows.columns) == list(COLUMNS)
    first, second = rows.to_dict("records")
    assert (first["image_AUROC"], math.isnan(first["pixel_AP"])) == (0.1 + 0.2, True)  # to the last digit
    assert (first["category"], first["label"], first["seed"], first["draw"]) == ("NA", 'quoted "a, b"', "1", "2")
    assert second["reason"] == "one\ntwo"
    assert read_provenance(tmp_path / "rows.csv") == ["command: dpclip benchmark --config x.yaml", "machine: a machine"]


def test_scores_and_corrupted_images_lie_beside(tmp_path):
    shift = [{"corruption": "blur", "strength": 1.0, "false_alarm_rate": 0.25}]
    path = write_results(tmp_path / "rows.csv", {"scores": [0.25, 0.75], "labels": [0, 1], "shift": shift}, {})
    images = read_beside(path, "images")
    assert images[["key", "image", "defect", "score", "called"]].to_numpy().tolist() == [
        ["rows0", "test/000.png", pytest.approx(float("nan"), nan_ok=True), 0.25, 0],
        ["rows0", "test/001.png", "crack", 0.75, 1],
    ]
    assert read_beside(path, "shift").to_dict("records") == [{"key": "rows0", **shift[0]}]
    assert read_beside(write_results(tmp_path / "other.csv", {}), "images").empty


def test_what_lies_beside_goes_with_the_last_of_its_jobs(tmp_path):
    path = write_results(tmp_path / "rows.csv", {"scores": [0.5], "labels": [0], "shift": [{"corruption": "blur"}]}, {})
    (jobs_folder(path) / "rows0.json").unlink()
    write_tables(path, PROVENANCE)
    assert read_rows(path)["key"].tolist() == ["rows1"]
    assert not len(read_beside(path, "images")) + len(read_beside(path, "shift"))


def test_other_corruptions_are_added(tmp_path):
    path = write_results(tmp_path / "rows.csv", {"shift": [{"corruption": name, "strength": 1} for name in ("blur", "light")]})
    write_results(path, {"shift": [{"corruption": name, "strength": 2} for name in ("light", "move")]})
    shift = read_beside(path, "shift")
    assert shift[["corruption", "strength"]].to_numpy().tolist() == [["blur", 1], ["light", 2], ["move", 2]]


def test_a_csv_without_its_jobs_is_not_written_over(tmp_path):
    path = write_results(tmp_path / "rows.csv", {"image_AP": 0.5})
    jobs_folder(path).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"rows\.csv: .*rows\.jobs, which is not there.*--fresh sets this file aside"):
        take_up(path, {})


def test_rows_of_an_earlier_state_are_marked_until_that_state_is_back(tmp_path):
    path = write_results(tmp_path / "rows.csv", {"reason": "noted"}, {"status": "failed"}, {"label": "other"})
    write_result(path, Result({**ROW, "key": "now", "status": "failed"}))
    write_result(path, Result({**ROW, "key": "now"}))  # repaired

    def statuses(label, key):
        take_up(path, {identity_of({**ROW, "label": label}): key})
        rows = write_tables(path, PROVENANCE).set_index("key")
        return rows["status"].to_dict(), rows.loc["rows0", "reason"]

    changed = "its weights, data or settings have changed since"
    # The failure says nothing any more.
    assert statuses("A", "now") == ({"rows0": "superseded", "rows2": "ok", "now": "ok"}, changed)
    assert statuses("third", "of another config") == ({"rows0": "superseded", "rows2": "ok", "now": "ok"}, changed)
    assert statuses("A", "rows0") == ({"rows0": "ok", "rows2": "ok", "now": "superseded"}, "noted")


@pytest.mark.parametrize("read", [read_rows, lambda path: take_up(path, {})])
@pytest.mark.parametrize("text", ["a,b\n1,2\n", "", "\0\xff"])
def test_other_files_are_refused_by_name(tmp_path, text, read):
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"rows\.csv: not a CSV of benchmark results"):
        read(path)


@pytest.mark.parametrize(("column", "cell"), [("by_defect", "0.98 crack"), ("by_defect", "[1]"), ("image_AP", "95.4 ± 0.2")])
def test_a_csv_of_an_earlier_format_is_named_with_the_remedy(tmp_path, column, cell):
    path = write_results(tmp_path / "rows.csv", {})
    read_rows(path).assign(**{column: cell}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"rows\.csv: .*another format.*--fresh sets this file aside") as refused:
        read_rows(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("rows.jobs/rows0.json", text) for text in ("{} {}", "[]", '{"other": 1}', '{"row": []}', '{"row": {"label": "A"}}')),
        *((f"rows.{what}.csv", "a,b\n1,2\n") for what in ("images", "shift")),
    ],
)
def test_other_files_of_an_earlier_format_are_named_with_the_remedy(tmp_path, name, text):
    path = write_results(tmp_path / "rows.csv", {})
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: .*--fresh sets this file aside"):
        read_results(path), read_beside(path, "images"), read_beside(path, "shift")


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dpclip benchmark --config CONFIG --out .*rows\.csv"):
        read_rows(tmp_path / "rows.csv")


def test_files_of_other_columns_are_read_as_far_as_they_go(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("label,model,knows,data_set,category,seed,status,key,image_AUROC,more\nA,M,nothing,S,c,1,ok,k,0.5,x\n")
    (row,) = read_rows(path).to_dict("records")
    assert (row["image_AUROC"], row["draw"], row["reason"]) == (0.5, "", "")
    assert pd.isna(row["seg_F1"])


def test_setting_aside_takes_all_that_belongs_together(tmp_path):
    path = tmp_path / "rows.csv"
    for number in (1, 2):
        write_results(path, {"scores": [0.1], "labels": [0]})
        set_aside(path)
        assert read_rows(tmp_path / f"rows-{number}.csv")["key"].tolist() == ["rows0"]
        assert beside(tmp_path / f"rows-{number}.csv", "images").is_file()
        assert jobs_folder(tmp_path / f"rows-{number}.csv").is_dir()
    set_aside(path)  # nothing is there
    assert not list(tmp_path.glob("rows.*"))
