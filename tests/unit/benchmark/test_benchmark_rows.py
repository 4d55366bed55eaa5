"""Benchmark rows on disk: whole rows only, whatever interrupts the writing."""

import math

import pandas as pd
import pytest

from anomalib_dpclip.benchmark.rows import COLUMNS, append_row, open_rows, read_provenance, read_rows, row_key

HEADER = {"command": "dpclip benchmark", "machine": "a\nb"}


def _row(key="k", **cells):
    names = {"label": "A", "model": "M", "data_set": "D", "category": "c", "accelerator": "cpu"}
    return {**names, "seed": 1, "status": "ok", "key": key, **cells}


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "deep" / "rows.csv"
    open_rows(path, HEADER)
    append_row(path, _row(category="NA", image_AUROC=0.1 + 0.2, pixel_AUROC=math.nan))
    append_row(path, _row("l", label='comma, "quote"', status="failed", reason="line\n  two"))
    rows = read_rows(path)
    assert list(rows.columns) == list(COLUMNS)
    assert rows["category"].tolist() == ["NA", "c"]
    assert rows["image_AUROC"][0] == 0.1 + 0.2
    assert math.isnan(rows["pixel_AUROC"][0])
    assert rows["label"][1] == 'comma, "quote"'
    assert rows["reason"].tolist() == ["", "line two"]
    assert read_provenance(path) == ["command: dpclip benchmark", "machine: a b"]


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_half_written_last_row_is_dropped(tmp_path, cut):
    path = tmp_path / "rows.csv"
    open_rows(path, HEADER)
    append_row(path, _row("first"))
    whole = path.read_bytes()
    append_row(path, _row("second"))
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_rows(path)["key"][0] == "first"  # a report can be made at any time
    open_rows(path, HEADER)
    assert path.read_bytes() == whole
    append_row(path, _row("third"))
    assert read_rows(path)["key"].tolist() == ["first", "third"]


def test_the_last_row_of_a_job_counts(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    for path, status in ((first, "failed"), (second, "ok")):
        open_rows(path, HEADER)
        append_row(path, _row("same", status=status))
    assert read_rows(first, second)["status"].tolist() == ["ok"]


def test_a_job_keeps_its_key_unless_it_changes():
    job = {"seed": 1, "model": {"class_path": "A", "init_args": {"x": 1}}}
    assert row_key(job) == row_key({"model": {"init_args": {"x": 1}, "class_path": "A"}, "seed": 1})
    assert row_key(job) != row_key({**job, "seed": 2})


def test_an_empty_file_is_started_anew(tmp_path):
    path = tmp_path / "rows.csv"
    path.touch()
    open_rows(path, HEADER)
    assert read_rows(path).empty


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.csv"
    pd.DataFrame({"label": ["A"]}).to_csv(path, index=False)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"other\.csv.*--fresh"):
        open_rows(path, HEADER)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match=r"other\.csv.*lacks the columns"):
        read_rows(path)
    path.write_bytes(b"\xff\xfe,\x00\n")
    with pytest.raises(ValueError, match=r"other\.csv: not a CSV of benchmark results"):
        read_rows(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_rows(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match=r"no such columns.*typo"):
        append_row(path, _row(typo=1))
