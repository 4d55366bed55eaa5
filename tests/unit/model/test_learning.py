"""What is decided before the first step."""

from types import SimpleNamespace

import pytest

from anomalib_dpclip.model.training.learning import prepare_trainer


def test_epochs_are_the_published_ones_where_nobody_asks_and_precision_suffices():
    for asked, expected in ((1000, 20), (3, 3)):
        trainer = SimpleNamespace(precision="32-true", max_epochs=asked, fit_loop=SimpleNamespace(max_epochs=asked))
        prepare_trainer(trainer)
        assert trainer.fit_loop.max_epochs == expected
    for precision in ("16-true", "64-true"):
        with pytest.raises(ValueError, match=rf"--trainer\.precision {precision} cannot train: use bf16-mixed or 32-true"):
            prepare_trainer(SimpleNamespace(precision=precision))
