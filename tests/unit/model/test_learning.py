"""What training sets of its own before the first step."""

from types import SimpleNamespace

import pytest

from anomalib_dpclip.model.training.learning import prepare_trainer


@pytest.mark.parametrize(("asked", "expected"), [(1000, 20), (3, 3)])
def test_epochs_are_the_published_ones_where_nobody_asks(asked, expected):
    trainer = SimpleNamespace(precision="32-true", max_epochs=asked, fit_loop=SimpleNamespace(max_epochs=asked))
    prepare_trainer(trainer)
    assert trainer.fit_loop.max_epochs == expected


@pytest.mark.parametrize("precision", ["16-true", "64-true"])
def test_a_precision_that_cannot_learn_is_refused(precision):
    with pytest.raises(ValueError, match=rf"--trainer\.precision {precision} cannot train: use bf16-mixed or 32-true"):
        prepare_trainer(SimpleNamespace(precision=precision))
