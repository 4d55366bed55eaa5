"""Host models with the weights that DP-CLIP compares good images by."""

import pytest
import torch
from anomalib.models import Padim, Patchcore

from anomalib_dpclip.benchmark.measure import use_network
from anomalib_dpclip.clip.feature_tower import EMBEDDED, load_feature_tower

LAYERS = ["blocks.2", "blocks.4", "blocks.6"]


def test_a_host_model_sees_the_images_and_has_the_features_of_the_memory():
    model, tower = Patchcore("tf_efficientnet_lite0", LAYERS, pre_trained=False), load_feature_tower(EMBEDDED)
    use_network(model, EMBEDDED)
    image = torch.rand(1, 3, 100, 80)
    prepared = model.pre_processor.transform(image)
    assert prepared.shape[-2:] == tower.image_size
    features = list(model.model.feature_extractor(prepared).values())
    for found, expected in zip(features, tower.network(prepared), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_host_model_of_another_backbone_is_refused():
    with pytest.raises(ValueError, match="network: Padim does not take the weights of efficientnet_lite0"):
        use_network(Padim(pre_trained=False), EMBEDDED)
