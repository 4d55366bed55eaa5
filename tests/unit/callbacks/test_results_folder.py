from types import SimpleNamespace

import pytest
import torch
from anomalib.utils.path import create_versioned_dir, resolve_versioned_path
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_dpclip.callbacks.results_folder import UNFINISHED, ResultsFolder, prepare_folder, restore_latest

pytestmark = pytest.mark.skipif("os.name == 'nt'", reason="there anomalib makes junctions")


class FakeTrainer(SimpleNamespace):
    @property
    def default_root_dir(self):
        return str(self._default_root_dir)


def trainer(folder, command=TrainerFn.TESTING, global_step=0):
    checkpoints = SimpleNamespace(dirpath=str(folder / "weights" / "lightning"))
    return FakeTrainer(
        _default_root_dir=folder,
        is_global_zero=True,
        global_step=global_step,
        state=SimpleNamespace(fn=command),
        checkpoint_callbacks=[checkpoints, SimpleNamespace(dirpath="/elsewhere"), SimpleNamespace(dirpath=None)],
    )


def fit(parent, finishes=True, learns=True):
    running = trainer(create_versioned_dir(parent), TrainerFn.FITTING)
    folder = running._default_root_dir
    prepare_folder(running)
    if learns:
        (folder / "weights" / "lightning").mkdir(parents=True)
        torch.save({"optimizer_states": [{"step": 1}]}, folder / "weights" / "lightning" / "model.ckpt")
    if finishes:
        ResultsFolder().teardown(running, None, "fit")
    return folder


def test_a_test_and_then_a_training(tmp_path):
    prepare_folder(trainer(tmp_path / "calibrated"))
    assert not any(tmp_path.iterdir()), "one of another name is left alone"
    (tmp_path / "latest").mkdir()  # by an earlier test of anomalib's
    prepare_folder(trainer(tmp_path / "latest"))
    (tmp_path / "latest" / "decisions.csv").write_text("of the test")
    assert (tmp_path / "latest").resolve() == tmp_path / "v0"
    # anomalib's own function, which raised IsADirectoryError on a real folder.
    assert fit(tmp_path) == tmp_path / "v1"
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"
    assert (tmp_path / "v0" / "decisions.csv").read_text() == "of the test"


def test_latest_is_the_last_that_finished(tmp_path):
    fit(tmp_path, finishes=False)
    assert not (tmp_path / "latest").exists()
    fit(tmp_path)
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"
    fit(tmp_path, finishes=False)
    fit(tmp_path, finishes=False, learns=False)
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"
    assert [path.name for path in sorted(tmp_path.glob("v*/unfinished"))] == [UNFINISHED] * 3
    fit(tmp_path, learns=False)  # as --trainer.fast_dev_run does
    assert not (tmp_path / "v4").exists()
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"


def test_runs_that_do_not_train_have_a_folder_of_their_own(tmp_path):
    folder = fit(tmp_path)
    running = trainer(resolve_versioned_path(tmp_path / "latest"))
    for _ in range(2):  # anomalib validates and then tests
        prepare_folder(running)
        assert running.default_root_dir == str(folder / "evaluation")
    dirpaths = [callback.dirpath for callback in running.checkpoint_callbacks]
    assert dirpaths == [str(folder / "evaluation" / "weights" / "lightning"), "/elsewhere", None]
    assert (tmp_path / "latest").resolve() == folder


def test_the_next_run_undoes_what_a_training_left_that_failed_before_it_began(tmp_path):
    """As with a wrong argument of the trainer in Python, which no hook is told of."""
    folder = fit(tmp_path)
    create_versioned_dir(tmp_path)
    running = trainer(resolve_versioned_path(tmp_path / "latest"))
    prepare_folder(running)
    assert running.default_root_dir == str(folder / "evaluation")
    assert running.checkpoint_callbacks[0].dirpath == str(folder / "evaluation" / "weights" / "lightning")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["latest", "v0"]
    assert (tmp_path / "latest").resolve() == folder


def test_calibrations_are_written_where_earlier_ones_are(tmp_path):
    (tmp_path / "v0" / "weights" / "lightning").mkdir(parents=True)
    torch.save({"optimizer_states": []}, tmp_path / "v0" / "weights" / "lightning" / "model.ckpt")
    running = trainer(tmp_path / "v0")
    prepare_folder(running)
    assert running.default_root_dir == str(tmp_path / "v0")


def test_a_training_that_failed_before_it_began_leaves_latest_where_it_was(tmp_path):
    """As with a wrong flag of the trainer: anomalib has made the folder and the link before."""
    weave, photos = tmp_path / "Surfaces" / "weave", tmp_path / "photos"
    for root in (weave, photos):
        finished = create_versioned_dir(root)
        (finished / "images").mkdir()
        create_versioned_dir(root)
        restore_latest(tmp_path)
        assert [path.name for path in sorted(root.iterdir())] == ["latest", "v0"]
        assert (root / "latest").resolve() == finished
        restore_latest(tmp_path)
    create_versioned_dir(tmp_path / "first")
    restore_latest(tmp_path)
    assert list((tmp_path / "first").iterdir()) == []
    restore_latest(tmp_path / "gone")
