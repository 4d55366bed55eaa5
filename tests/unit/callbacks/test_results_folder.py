"""Tests and predictions before the first training leave a link that a training can move."""

from types import SimpleNamespace

from anomalib.utils.path import create_versioned_dir

from anomalib_dpclip.callbacks.results_folder import link_latest


def trainer(folder):
    return SimpleNamespace(default_root_dir=str(folder), is_global_zero=True)


def test_a_test_and_then_a_training(tmp_path):
    link_latest(trainer(tmp_path / "latest"))
    (tmp_path / "latest" / "decisions.csv").write_text("of the test")
    assert (tmp_path / "latest").resolve() == tmp_path / "v0"
    # anomalib's own function, which raised IsADirectoryError on a real folder.
    assert create_versioned_dir(tmp_path) == tmp_path / "v1"
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"
    assert (tmp_path / "v0" / "decisions.csv").read_text() == "of the test"


def test_a_folder_that_is_there_already_is_kept(tmp_path):
    (tmp_path / "v3").mkdir()
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "results.csv").write_text("earlier")
    link_latest(trainer(tmp_path / "latest"))
    assert (tmp_path / "v4" / "results.csv").read_text() == "earlier"
    assert (tmp_path / "latest").is_symlink()


def test_other_folders_and_links_are_left_alone(tmp_path):
    link_latest(trainer(tmp_path / "calibrated"))
    assert not (tmp_path / "calibrated").exists()
    create_versioned_dir(tmp_path)
    link_latest(trainer(tmp_path / "latest"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "v0"]
