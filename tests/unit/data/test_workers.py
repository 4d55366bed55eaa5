"""The default number of worker processes, on machines and in processes of several kinds."""

import multiprocessing
import os
from types import SimpleNamespace

import pytest

from anomalib_dpclip.data.photos import Photos
from anomalib_dpclip.data.readers import default_num_workers


@pytest.mark.parametrize(("processors", "devices", "expected"), [(1, 1, 1), (2, 1, 1), (8, 1, 7), (16, 4, 3), (64, 1, 8)])
def test_one_processor_is_left_to_each_device(monkeypatch, tmp_path, processors, devices, expected):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "fork")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(processors), raising=False)
    assert default_num_workers(devices) == expected
    if devices == 1:
        assert Photos(tmp_path).num_workers == expected


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_none_where_processes_are_not_forked(monkeypatch, method):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    assert default_num_workers() == 0


def test_none_in_a_process_that_may_have_no_children(monkeypatch):
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert default_num_workers() == 0
