import json
import logging

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tests.tiny_clip import CONFIG, tiny_clip

from anomalib_dpclip.clip.loading import load_clip
from anomalib_dpclip.clip.towers import tower_of
from anomalib_dpclip.clip.weights import fingerprint
from anomalib_dpclip.method.prompting import text_anchors

NAME = "dpclip-test-tiny"


@pytest.fixture(scope="module", autouse=True)
def _known_to_open_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / f"{NAME}.json"
    path.write_text(json.dumps(CONFIG | {"quick_gelu": True}))
    open_clip.add_model_config(path)


class Archive(torch.nn.Module):
    """A TorchScript archive in the shape of OpenAI's: half precision, and scalars beside the weights."""

    def __init__(self, clip):
        super().__init__()
        self.add_module("visual", clip.visual)
        self.transformer, self.token_embedding, self.ln_final = clip.transformer, clip.token_embedding, clip.ln_final
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(self, name, getattr(clip, name))
        for name, value in (("input_resolution", 24), ("context_length", 77), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.token_embedding(tokens)


def write(clip, folder, kind):
    path = folder / f"clip.{'safetensors' if kind == 'safetensors' else 'pt'}"
    state = {name: value.contiguous() for name, value in clip.state_dict().items()}
    if kind == "torchscript":
        torch.jit.trace(Archive(clip.half()), torch.zeros(1, 3, dtype=torch.long)).save(path)
        clip.float()
    elif kind == "state dict":
        torch.save(state, path)
    elif kind == "training checkpoint":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        save_file(state, path)
    return str(path)


@pytest.mark.parametrize("kind", ["torchscript", "state dict", "training checkpoint", "safetensors"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # how OpenAI's files are made, not how they are read
@torch.no_grad()
def test_local_files(tmp_path, kind):
    clip = tiny_clip(seed=5)
    loaded, text = load_clip(NAME, write(clip, tmp_path, kind), image_size=24, quick_gelu=False)
    tolerance = 1e-3 if kind == "torchscript" else 1e-7
    images = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(loaded.encode_image(images), clip.encode_image(images), atol=10 * tolerance, rtol=0)
    expected = clip.encode_text(open_clip.tokenize(["a broken screw."]))
    torch.testing.assert_close(text(["a broken screw."]), expected, atol=10 * tolerance, rtol=0)
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training


@pytest.mark.parametrize(("quick_gelu", "name"), [(False, "GELU"), (True, "QuickGELU")])
def test_the_argument_alone_chooses_the_activation(caplog, quick_gelu, name):
    with caplog.at_level(logging.WARNING):
        clip, _ = load_clip(NAME, "random", 24, quick_gelu)
    assert "untrained" in caplog.text
    for tower in (clip.visual.transformer, clip.transformer):
        assert {type(block.mlp.gelu).__name__ for block in tower.resblocks} == {name}


def test_image_sizes():
    assert load_clip(NAME, "random")[0].visual.image_size == (520, 520)  # the multiple of 4 nearest to 518
    clip, text = load_clip("mini", image_size=168)
    assert tower_of(clip.visual).grid == (12, 12)
    assert text(["a photo of a brick."]).shape == (1, 64)


def test_fingerprint_tells_weights_and_activations_apart():
    changed = tiny_clip()
    with torch.no_grad():
        changed.visual.transformer.resblocks[2].mlp.c_fc.bias += 1e-3
    prints = [fingerprint(clip) for clip in (tiny_clip(), tiny_clip(seed=1), tiny_clip(quick_gelu=True), changed)]
    assert len(set(prints)) == 4
    assert fingerprint(tiny_clip()) == prints[0]


@pytest.mark.parametrize("kind", [torch.nn.MultiheadAttention, type("AsExported", (torch.nn.MultiheadAttention,), {})])
@torch.no_grad()
def test_blocks_that_want_the_sequence_first(kind):
    """open_clip's blocks up to 2.24 take (L, B, C): the same weights must give the same tokens, in torch's exporter too."""
    tower, older = tower_of(tiny_clip().visual), tower_of(tiny_clip().visual)
    for block in older.visual.transformer.resblocks:
        attention = kind(16, 2, batch_first=False)
        attention.load_state_dict(block.attn.state_dict())
        block.attn = attention.eval()
    tokens = torch.randn(3, 37, 16)
    for index in range(4):
        torch.testing.assert_close(older.layer(index, tokens), tower.layer(index, tokens))


@pytest.mark.parametrize("name", ["metal " * 60, "x" * 300, "", "Größe 测试 🙂"])
@pytest.mark.parametrize("backbone", [NAME, "mini"])
@pytest.mark.filterwarnings("ignore:the mini backbone does not know the word")
def test_any_class_name_has_anchors(backbone, name):
    _, text = load_clip(backbone, "random")
    anchors = text_anchors(text, name)
    torch.testing.assert_close(anchors.norm(dim=0), torch.ones(2))
    assert not torch.allclose(anchors[:, 0], anchors[:, 1], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "ViT-Q"}, r"unknown backbone 'ViT-Q': it must be 'mini' or an open_clip model"),
        ({"backbone": "RN50"}, "backbone 'RN50' is a ResNet, not a vision transformer; try 'ViT-L-14-336'"),
        ({"backbone": "ViT-B-16-SigLIP", "quick_gelu": True}, "whose vision tower has its own activation"),
        ({"backbone": NAME, "image_size": 30}, "image_size=30 is not a multiple of the backbone's patch size 4; try 28 or 32"),
        ({"backbone": "mini", "image_size": 0}, "image_size=0 is not a multiple"),
        ({"backbone": "mini", "quick_gelu": True}, "quick_gelu=True does not fit backbone='mini'"),
        ({"backbone": "mini", "pretrained": "laion2b"}, "pretrained='laion2b' does not fit backbone='mini'"),
        ({"backbone": NAME, "pretrained": "openai"}, r"neither a file nor a tag of dpclip-test-tiny \(its tags: none\)"),
        ({"backbone": "ViT-B-32", "pretrained": "lion2b"}, r"neither a file nor a tag of ViT-B-32 \(its tags: .*openai"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_clip(**({"pretrained": "random"} | arguments))


@pytest.mark.parametrize("pretrained", ["no such.pt", "folder/clip", "~/no such/clip.safetensors", "weights", "some/weights"])
def test_a_missing_file_or_a_folder(monkeypatch, tmp_path, pretrained):
    (tmp_path / "weights").mkdir()
    (tmp_path / "some" / "weights").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    reason = " is a folder: give the file" if pretrained.endswith("weights") else ": there is no such file"
    with pytest.raises(FileNotFoundError, match=f"pretrained='{pretrained}'{reason} of CLIP weights"):
        load_clip(NAME, pretrained, 24)


@pytest.mark.parametrize(
    ("name", "tag", "remedy"),
    [
        ("ViT-B-32", "openai", r"Fetch https://\S+/ViT-B-32\.pt elsewhere .* --model.pretrained /path/to/ViT-B-32\.pt"),
        (
            "EVA02-B-16",
            "merged2b_s8b_b131k",
            r"Fetch (\S+) of timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k from Hugging Face .* /path/to/\1 ",
        ),
    ],
)
def test_weights_that_cannot_be_downloaded(monkeypatch, name, tag, remedy):
    def no_network(*args, **kwargs):
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained", no_network)
    monkeypatch.setattr("anomalib_dpclip.clip.weights.require_hub", lambda repository: None)
    with pytest.raises(FileNotFoundError, match=rf"'{tag}' of {name} are not on this machine .*no route to host\).*{remedy}"):
        load_clip(name, tag)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"visual.proj": torch.zeros(3, 3)}, r"visual.proj is \(3, 3\) in the file and \(16, 8\) in the"),
        (lambda state: dict.fromkeys("ab", torch.zeros(1)), r"\d+ tensors missing, .*; 2 tensors too many, such as 'a'"),
        (lambda state: {n: v for n, v in state.items() if n != "visual.positional_embedding"}, "1 tensors missing, such as"),
        (lambda state: state | {"visual.positional_embedding": torch.zeros(37, 24)}, "visual.positional_embedding is"),
        (lambda state: {1: torch.zeros(1)}, r"\d+ tensors missing"),
        (lambda state: {"visual.positional_embedding": torch.tensor(1.0)}, ""),
    ],
)
def test_weights_of_another_model_are_one_line(tmp_path, change, message):
    path = tmp_path / "clip.pt"
    torch.save(change(tiny_clip().state_dict()), path)
    with pytest.raises(ValueError, match=rf"^{path} holds no CLIP weights of backbone '{NAME}': {message}.*$") as caught:
        load_clip(NAME, str(path), 24)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [{}, [torch.zeros(1)], {"state_dict": 3}, {"a": torch.zeros(1), "b": "text"}, 7])
def test_files_of_something_else(tmp_path, content):
    path = tmp_path / "clip.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"{path} holds no state dict of CLIP weights"):
        load_clip(NAME, str(path), 24)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not weights", b"PK\x03\x04" + b"x" * 50])
def test_bytes_of_something_else(tmp_path, suffix, content):
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is not a file of CLIP weights that can be read"):
        load_clip(NAME, str(path), 24)
