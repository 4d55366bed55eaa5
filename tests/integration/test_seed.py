"""The seed that a model learns with: its own, the global one, or the published one."""

from dataclasses import replace

import pytest
import torch
from lightning import seed_everything

from anomalib_dpclip import load_adapters, save_adapters
from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors
from anomalib_dpclip.model.arguments import DEFAULT_SEED


def equal(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def adapters_of(model):
    return {name: value.clone() for name, value in adapter_tensors(model.model).items()}


@pytest.fixture(scope="module")
def learned(make_model, make_target, engine_in, tmp_path_factory):
    def learn(model=None, before=lambda: None, **arguments):
        model = model or make_model(**arguments)
        before()
        engine = engine_in(tmp_path_factory.mktemp("learned"), max_epochs=1, limit_train_batches=2, limit_val_batches=0)
        engine.fit(model, datamodule=make_target())
        return model

    return learn


@pytest.fixture(scope="module")
def of_seed_7(learned):
    return adapters_of(learned(seed=7))


def test_nobody_s_seed_and_the_0_that_anomalib_s_command_line_sets_are_the_published_one(learned, monkeypatch, of_seed_7):
    model = learned()
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    unasked = learned()
    assert model.seed == unasked.seed == DEFAULT_SEED == 111
    assert equal(adapters_of(model), adapters_of(unasked))
    assert not equal(adapters_of(model), of_seed_7)


@pytest.mark.parametrize("when", ["before the model", "after it"])  # as `anomalib benchmark` does
def test_a_global_seed_is_taken(learned, when, of_seed_7):
    if when == "before the model":
        seed_everything(7)
    model = learned(before=lambda: seed_everything(7) if when == "after it" else None)
    assert model.seed == model.auxiliary.seed == model.provenance.hyper_parameters["seed"] == 7
    assert equal(adapters_of(model), of_seed_7)


def test_adapters_that_were_loaded_are_learned_on(make_model, learned, tmp_path):
    path = save_adapters(learned(seed=3), tmp_path / "adapters.safetensors")
    model, loaded = make_model(), {}

    def load():
        load_adapters(model, path)
        loaded.update(adapters_of(model))
        seed_everything(7)

    model.training_options = replace(model.training_options, learning_rate=1e-12)
    learned(model, load)
    assert all(torch.allclose(value, loaded[name], atol=1e-8) for name, value in adapters_of(model).items())
