import inspect
import json

import anomalib.data
import pytest
from anomalib.data.datasets.image import btech, mpdd, mvtecad, visa
from tests import paths

from anomalib_dpclip import DPCLIP, Surfaces
from anomalib_dpclip.benchmark.config import jobs_of, read_config, use_folders
from anomalib_dpclip.benchmark.draws import Draws

CONFIGS = paths.CONFIGS / "benchmark"


def test_trainings_are_shared_by_what_they_learn_from():
    def key(seed=1, data="MVTecAD", root=None, name=None, metadata=None, **init_args):
        target = {"category": "x", "root": root, "name": name, "metadata": metadata}
        entry = {"grid": [{"class_path": "DPCLIP", "init_args": init_args}]}
        section = {"seed": seed, "model": entry, "data": {"class_path": data, "init_args": target}}
        return jobs_of({"benchmark": section})[0].training_key

    assert key() == key(data="MPDD") == key(k_shot=4, tiles=2, lot=True)  # all learn from VisA
    assert key() != key(data="Visa")  # which learns from MVTec AD
    assert key(data="JSONLines", name="VisA") == key(data="Visa")
    assert key(data="JSONLines", metadata="metadata/VisA/full-shot.jsonl") == key(data="Visa")
    assert key(data="JSONLines", name="Parts") == key()
    assert key(data="Surfaces", root="a") != key(data="Surfaces", root="b")  # learned from what lies there
    assert key(auxiliary="VisA") == key(auxiliary="VisA", data="Visa")
    assert len({key(), key(seed=2), key(decoupling_weight=0.0)}) == 3
    assert key(weights="trained.safetensors") is None
    assert key(auxiliary="synthetic") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("benchmark: {seed: 1, model: {class_path: A}}", "must have seed, model and data; missing: data"),
        ("benchmark: [", "c.yaml"),
        ("benchmark: {seed: 1, model: null, data: {class_path: D}}", "model` must have a class_path.*None"),
        ("benchmark: {seed: 1, model: {class_path: A, label: [x]}, data: {class_path: D}}", "model.label` of A must be text"),
        ("benchmark: {seed: 1, model: {class_path: A, init_args: 5}, data: {class_path: D}}", "init_args` of A must be arg"),
        ("benchmark: {seed: -1, model: {class_path: A}, data: {class_path: D}}", "seed` must be a whole number.*-1"),
        ("benchmark: {seed: {grid: []}, model: {class_path: A}, data: {class_path: D}}", "seed.grid` must be a list"),
        ("benchmark: {seed: 1, trainer: 5, model: {class_path: A}, data: {class_path: D}}", "trainer` must be arguments"),
        ("{accelerator: tpu, benchmark: {seed: 1, model: {class_path: A}, data: {class_path: D}}}", "accelerator.*'tpu'"),
        ("benchmark: {seed: 1, shift: [fog], model: {class_path: A}, data: {class_path: D}}", "no corruption 'fog'; there"),
        ("benchmark: {seed: 1, model: {class_path: A, k_shot: -1}, data: {class_path: D}}", "A: k_shot must be a number.*-1"),
    ],
)
def test_bad_configs(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        jobs_of(read_config(path))


@pytest.mark.parametrize(("part", "called"), [("model", "models are called 'A'"), ("data", "data sets are called 'A', cat")])
def test_what_tables_could_not_tell_apart(part, called):
    with pytest.raises(ValueError, match=f"two different {called}.*give each its own `label`"):
        jobs_of(config(**{part: {"grid": [{"class_path": "A"}, {"class_path": "A", "x": 1}]}}))


def config(**section):
    return {"benchmark": {"seed": 1, "model": {"class_path": "A"}, "data": {"class_path": "D"}, **section}}


def test_grids_inside_arguments_are_labelled_by_what_varies():
    jobs = jobs_of(
        config(
            seed={"grid": [1, 2]},
            model={"class_path": "A", "label": "C", "init_args": {"gain": {"grid": [1.0, 2.0]}, "other": 1}},
            data={"class_path": "MVTecAD", "init_args": {"image_size": {"grid": [40, 80]}, "category": {"grid": ["a", "b"]}}},
            trainer={"max_epochs": {"grid": [1, 6]}},
        )
    )
    assert len({job.key for job in jobs}) == len(jobs) == 2 * 2 * 2 * 2 * 2
    assert {job.label for job in jobs} == {f"C, gain={gain}, max_epochs={epochs}" for gain in (1.0, 2.0) for epochs in (1, 6)}
    assert {job.data_set for job in jobs} == {"MVTecAD, image_size=40", "MVTecAD, image_size=80"}


def test_models_that_are_shown_some_images_are_tested_once_a_draw(tmp_path):
    models = [
        {"class_path": "DPCLIP", "label": "none"},
        {"class_path": "DPCLIP", "label": "four", "init_args": {"k_shot": 4}},
        {"class_path": "DPCLIP", "label": "folder", "init_args": {"k_shot": 4, "few_shot_source": "photos"}},
        {"class_path": "Patchcore", "label": "host", "k_shot": 1},
        {"class_path": "Patchcore", "label": "all", "k_shot": "all"},
    ]
    jobs = jobs_of(config(model={"grid": models}), Draws(3))
    found = {label: [job.draw for job in jobs if job.label == label] for label in ("none", "four", "folder", "host", "all")}
    assert found == {"none": [None], "four": [0, 1, 2], "folder": [None], "host": [0, 1, 2], "all": [0]}
    assert len({job.key for job in jobs}) == len(jobs)
    assert list(jobs[1].identity.values()) == ["four", "D", "all", "1", "0", "cpu"]

    (tmp_path / "draws.json").write_text(json.dumps({"D/all": [["a"] * 4, ["b"] * 4]}))
    assert len(jobs_of(config(model=models[1]), Draws(tmp_path / "draws.json"))) == 2


def test_a_lot_is_not_corrupted():
    models = {"grid": [{"class_path": "DPCLIP", "init_args": {"lot": lot}, "label": str(lot)} for lot in (False, True)]}
    section = {"seed": 1, "shift": ["light", "blur"], "model": models, "data": {"class_path": "MVTecAD"}}
    assert [job.shift for job in jobs_of({"benchmark": section})] == [("light", "blur"), ()]


def test_folders_take_the_place_of_the_root(tmp_path):
    data = {"class_path": "Folder", "init_args": {"name": "photographs", "root": "datasets", "normal_dir": "train"}}
    for name in ("cog", "tile"):
        (tmp_path / name).mkdir()
    settings = config(data=data)
    use_folders(settings, [tmp_path / "cog", tmp_path / "tile"])
    jobs = jobs_of(settings)
    assert [(job.data_set, job.data["init_args"]["root"]) for job in jobs] == [
        (name, str(tmp_path / name)) for name in ("cog", "tile")
    ]
    with pytest.raises(FileNotFoundError, match=r"folders: there is no folder .*nowhere"):
        use_folders(config(data=data), [tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"folders .*`benchmark\.data\.init_args\.root`"):
        use_folders(config(), [tmp_path])


# Configs of DP-CLIP alone, which anomalib's own pipeline runs too. The others compare models and arguments.
CATEGORIES = {
    "surfaces": Surfaces.target_categories,
    "mvtec": mvtecad.CATEGORIES,
    "visa": visa.CATEGORIES,
    "mpdd": mpdd.CATEGORIES,
    "btad": btech.CATEGORIES,
    "medical": ("all",) * 7,
}


@pytest.mark.parametrize("name", CATEGORIES)
def test_shipped_configs_are_complete(name, monkeypatch):
    monkeypatch.delenv("DPCLIP_WEIGHTS", raising=False)
    jobs = jobs_of(read_config(CONFIGS / f"{name}.yaml"))
    assert sorted(job.category for job in jobs) == sorted(CATEGORIES[name])
    assert len({job.training_key for job in jobs}) == 1
    assert jobs[0].training_key is not None
    for job in jobs:
        assert set(job.model["init_args"]) <= set(inspect.signature(DPCLIP).parameters)
        data = getattr(anomalib.data, job.data["class_path"])
        inspect.signature(data).bind(**job.data["init_args"])
    # anomalib's benchmark takes the first row's columns for all.
    assert len({tuple(job.data["init_args"]) for job in jobs}) == 1
    monkeypatch.setenv("DPCLIP_WEIGHTS", "trained.safetensors")
    trained = jobs_of(read_config(CONFIGS / f"{name}.yaml"))
    assert {(job.init_args["weights"], job.training_key) for job in trained} == {("trained.safetensors", None)}
