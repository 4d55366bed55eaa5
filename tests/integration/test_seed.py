"""The seed that a model learns with: its own, the global one, or the published one."""

from dataclasses import replace

import pytest
import torch
from lightning import seed_everything

from anomalib_dpclip import DPCLIP, load_adapters, save_adapters
from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors
from anomalib_dpclip.model.arguments import DEFAULT_SEED


def _equal(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def _adapters(model):
    return {name: value.clone() for name, value in adapter_tensors(model.model).items()}


@pytest.fixture
def learned(make_model, make_engine, target):
    def learn(model=None, before=lambda: None, **arguments):
        model = model or make_model(**arguments)
        before()
        make_engine(max_epochs=1, limit_train_batches=2, limit_val_batches=0).fit(model, datamodule=target)
        return model

    return learn


def test_nobody_s_seed_is_the_published_one(learned):
    model = learned()
    assert model.seed == DEFAULT_SEED == 111
    assert _equal(_adapters(model), _adapters(learned(seed=111)))


def test_anomalib_s_command_line_sets_0_unasked(learned, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    assert learned().seed == 111


@pytest.mark.parametrize("when", ["before the model", "after it"])
def test_a_global_seed_is_taken(learned, when):
    expected = _adapters(learned(seed=7))
    if when == "before the model":
        seed_everything(7)
        model = learned()
    else:  # as `anomalib benchmark` does
        model = learned(before=lambda: seed_everything(7))
    assert model.seed == model.auxiliary.seed == model.provenance.hyper_parameters["seed"] == 7
    assert _equal(_adapters(model), expected)
    assert not _equal(_adapters(learned(seed=111)), expected)


def test_adapters_that_were_loaded_are_learned_on(make_model, learned, tmp_path):
    path = save_adapters(learned(seed=3), tmp_path / "adapters.safetensors")
    model, loaded = make_model(), {}

    def load():
        load_adapters(model, path)
        loaded.update(_adapters(model))
        seed_everything(7)

    model.training_options = replace(model.training_options, learning_rate=1e-12)
    learned(model, load)
    assert all(torch.allclose(value, loaded[name], atol=1e-8) for name, value in _adapters(model).items())


def test_initial_adapters_are_those_of_a_new_model():
    model = DPCLIP(backbone="mini", seed=4)
    assert _equal(_adapters(model), model.model.initial_adapters(4))
    assert not _equal(_adapters(model), model.model.initial_adapters(5))
