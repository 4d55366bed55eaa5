"""Benchmark rows on disk: whole rows only, whatever interrupts the writing."""

import csv
import errno
import math
import os

import pandas as pd
import pytest

from anomalib_dpclip.benchmark.rows import (
    ADDED_LATER,
    COLUMNS,
    LINE_METRICS,
    append_row,
    open_rows,
    read_provenance,
    read_rows,
    row_key,
    set_aside,
)

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


class FullDisk:
    """`os.write` on a disk that has room for so many more bytes, then for any number again."""

    def __init__(self, room):
        self.room, self.really_write = room, os.write

    def __call__(self, descriptor, data):
        taken = data[: self.room]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(taken)
        return self.really_write(descriptor, taken)


@pytest.mark.parametrize("room", [0, 1, 7, 30, 33, 50, 51, 52])
def test_a_briefly_full_disk_costs_the_row_that_it_had_no_room_for(tmp_path, monkeypatch, room):
    path = tmp_path / "rows.csv"
    open_rows(path, HEADER)
    append_row(path, _row("first"))
    with monkeypatch.context() as full:
        full.setattr(os, "write", FullDisk(room))
        with pytest.raises(OSError, match="No space left"):
            append_row(path, _row("second", label='comma, "quote"', status="failed", reason="a, b"))
    append_row(path, _row("third"))
    assert read_rows(path)["key"].tolist() == ["first", "third"]

    open_rows(path, HEADER)
    append_row(path, _row("second"))
    assert read_rows(path)["key"].tolist() == ["first", "third", "second"]
    assert len(path.read_text().splitlines()) == 2 + 1 + 3  # nothing is left of the cut one
    assert read_provenance(path) == ["command: dpclip benchmark", "machine: a b"]


def test_a_disk_that_takes_a_row_in_two_parts_gets_all_of_it(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    open_rows(path, HEADER)
    really_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: really_write(descriptor, data[:20]))
    append_row(path, _row("first"))
    append_row(path, _row("second"))
    assert read_rows(path)["key"].tolist() == ["first", "second"]


def test_rows_that_were_joined_are_taken_out_and_said(tmp_path, caplog):
    path = tmp_path / "rows.csv"
    open_rows(path, HEADER)
    for key in ("first", "second", "third"):
        append_row(path, _row(key))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-2], lines[-2][:-9], lines[-1]]))  # the second row's end is lost
    assert read_rows(path)["key"].tolist() == ["first"]
    open_rows(path, HEADER)
    assert "took out 1 rows that were cut short" in caplog.text
    assert path.read_text() == "".join(lines[:-2])


def test_a_file_set_aside_is_kept(tmp_path):
    path = tmp_path / "rows.csv"
    assert set_aside(path) is None
    for content in "ab":
        path.write_text(content)
        set_aside(path)
    assert not path.exists()
    assert [(tmp_path / name).read_text() for name in ("rows-1.csv", "rows-2.csv")] == ["a", "b"]


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


def test_a_file_of_an_earlier_version_is_gone_on_with(tmp_path):
    path = tmp_path / "rows.csv"
    older = [name for name in COLUMNS if name not in ADDED_LATER]
    cells = {name: _row("first", model="DPCLIP", image_AUROC=0.5).get(name, "") for name in older}
    second = cells | {"key": "second", "label": 'comma, "quote"', "model": "Patchcore"}
    path.write_text("# command: before\n")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, older, lineterminator="\n")
        writer.writeheader()
        writer.writerows([cells, second])
        file.write("cut,sho")
    before = read_rows(path)
    assert before["knows"].tolist() == ["nothing", "all normal photos"]
    assert before[list(LINE_METRICS)].isna().all(axis=None)

    open_rows(path, HEADER)
    pd.testing.assert_frame_equal(read_rows(path), before)
    append_row(path, _row("third", knows="4 normal photos", overkill_at_2=0.25))
    rows = read_rows(path)
    assert rows["key"].tolist() == ["first", "second", "third"]
    assert rows["label"].tolist() == ["A", 'comma, "quote"', "A"]
    assert rows["knows"].tolist() == ["nothing", "all normal photos", "4 normal photos"]
    assert rows["overkill_at_2"].tolist()[2] == 0.25
    assert read_provenance(path) == ["command: before"]
    written = path.read_bytes()
    open_rows(path, HEADER)
    assert path.read_bytes() == written


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
