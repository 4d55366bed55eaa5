"""Training and testing of a model that sees large images in tiles."""


def test_learns_on_whole_images_and_tests_on_tiles(make_model, make_engine, target):
    model, sizes = make_model(tiles=2), {"tap_tokens": set(), "score": set()}

    def watched(owner, name):
        method = getattr(owner, name)

        def watch(images, *args):
            sizes[name].add((model.training, *images.shape[-2:]))
            return method(images, *args)

        setattr(owner, name, watch)

    watched(model.model, "tap_tokens")
    make_engine(max_epochs=1, limit_val_batches=0).fit(model=model, datamodule=target)
    watched(model.scorer, "score")
    model.eval()(next(iter(target.test_dataloader())).image)
    assert sizes == {"tap_tokens": {(True, 140, 140), (False, 140, 140)}, "score": {(False, 280, 280)}}
