"""Training, testing and checkpoints of models that see large images in tiles."""

import pytest

from anomalib_dpclip import DPCLIP


def test_a_checkpoint_of_other_tiles_is_refused(make_model, make_engine, target):
    engine = make_engine(max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    engine.fit(model=make_model(), datamodule=target)
    with pytest.raises(ValueError, match=r"images of \(140, 140\), the model takes \(280, 280\): give it as"):
        DPCLIP.load_from_checkpoint(engine.best_model_path, tiles=2)
    assert DPCLIP(backbone="mini", weights=engine.best_model_path, tiles=2).pre_processor.image_size == (280, 280)


def test_learns_on_whole_images_and_tests_on_tiles(make_model, make_engine, target):
    model = make_model(tiles=2)
    sizes = {"tap_tokens": set(), "predict": set()}
    for name, found in sizes.items():
        method = getattr(model.model, name)

        def spy(images, *args, method=method, found=found):
            found.add((model.training, *images.shape[-2:]))
            return method(images, *args)

        setattr(model.model, name, spy)
    (metrics,) = make_engine(max_epochs=1).train(model=model, datamodule=target)
    assert sizes == {"tap_tokens": {(True, 140, 140), (False, 140, 140)}, "predict": {(False, 280, 280)}}
    assert all(0 <= value <= 1 for value in metrics.values())
