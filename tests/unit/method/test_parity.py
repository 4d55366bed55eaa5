"""The numbers of the published implementation, met entry by entry (1e-5 relative, fp32), and six steps of its training."""

import open_clip
import pytest
import torch
from tests.parity import relative_error

from anomalib_dpclip.clip.text_tower import TextTower
from anomalib_dpclip.data_sets.class_names import describe
from anomalib_dpclip.method.losses import dice_loss, focal_loss
from anomalib_dpclip.method.objective import training_objective
from anomalib_dpclip.method.prompting import text_anchors
from anomalib_dpclip.method.prototypes import Prototypes

TOLERANCE = 1e-5


@pytest.mark.parametrize("pooling", ["tokens", "batch"])
@pytest.mark.parametrize("activation", [False, True])
@torch.no_grad()
def test_features(parity, pooling, activation):
    taps, detection = parity.model(pooling, activation=activation).features(parity["in/images"][:3])
    expected = parity.under(f"forward/{pooling}/relu{int(activation)}/")
    for index, tokens in enumerate(taps):
        assert relative_error(tokens, expected[f"seg{index}"]) < TOLERANCE
    assert relative_error(detection, expected["det"]) < TOLERANCE


@torch.no_grad()
def test_features_with_quick_gelu(parity):
    taps, detection = parity.model(quick_gelu=True).features(parity["in/images"][:3])
    assert relative_error(taps[3], parity["forward/tokens/quickgelu/seg3"]) < TOLERANCE
    assert relative_error(detection, parity["forward/tokens/quickgelu/det"]) < TOLERANCE


@pytest.mark.parametrize("key", ["MVTec/bottle", "MVTec/metal_nut", "VisA/pcb1", "Brain/Brain", "object"])
def test_anchors(parity, key):
    data_set, _, category = key.partition("/")
    name = describe(data_set, category) if category else "object"
    tower = TextTower(parity.clip(), open_clip.get_tokenizer("ViT-L-14-336"))
    assert relative_error(text_anchors(tower, name), parity[f"anchors/{key}"]) < TOLERANCE


def test_loss_terms(parity):
    probabilities = parity["loss/probabilities"]
    mask = parity["in/masks"][:3, 0] != 0
    logits = probabilities[:, 1].log() - probabilities[:, 0].log()
    assert relative_error(focal_loss(logits, mask), parity["loss/focal"]) < TOLERANCE
    assert relative_error(dice_loss(probabilities[:, 0], ~mask), parity["loss/dice_normal"]) < TOLERANCE
    assert relative_error(dice_loss(probabilities[:, 1], mask), parity["loss/dice_abnormal"]) < TOLERANCE


@pytest.mark.parametrize("pooling", ["tokens", "batch"])
@pytest.mark.parametrize("domain", ["industrial", "medical"])
@torch.no_grad()
def test_maps_and_scores(parity, pooling, domain):
    model = parity.model(pooling, domain=domain)
    model.anchors.copy_(parity["anchors/MVTec/bottle"])
    batches = [model(parity["in/images"][indices]) for indices in parity.meta["batch"]]
    maps = torch.cat([batch.anomaly_map for batch in batches])
    taps = len(parity.meta["taps"])
    published = 200 * taps * (maps - 0.5) + taps / 2
    assert relative_error(published, parity[f"predict/{pooling}/{domain}/map"]) < TOLERANCE
    scores = torch.cat([batch.pred_score for batch in batches])
    assert relative_error(scores, parity[f"predict/{pooling}/{domain}/det"]) < TOLERANCE


@pytest.mark.parametrize("pooling", ["tokens", "batch"])
def test_six_optimiser_steps(parity, pooling):
    meta, recipe = parity.meta, parity.meta["train"]
    model = parity.model(pooling).train()
    prototypes = Prototypes(meta["embed"], recipe["momentum"])
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=recipe["lr"], betas=tuple(recipe["betas"]))
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, recipe["milestones"], recipe["gamma"])
    anchors = torch.stack([parity[f"anchors/MVTec/{name}"] for name in meta["classes"]])
    masks = parity["in/masks"][:, 0] != 0

    weight = {"decoupling_weight": recipe["decoupling_weight"]}
    found = {name: [] for name in ("loss", "decoupling", "proto_normal", "proto_abnormal")}
    for _ in range(meta["epochs"]):
        for batch in meta["batch"]:
            images, labels = parity["in/images"][batch], parity["in/labels"][batch]
            objective = training_objective(model, prototypes, images, masks[batch], labels, anchors[batch], **weight)
            optimizer.zero_grad()
            objective.total.backward()
            optimizer.step()
            scheduler.step()
            prototypes.update(objective.directions)
            found["loss"].append(objective.total.detach())
            found["decoupling"].append(objective.decoupling.detach())
        found["proto_normal"].append(prototypes.normal.clone())
        found["proto_abnormal"].append(prototypes.abnormal.clone())

    for name, values in found.items():
        assert relative_error(torch.stack(values), parity[f"train/{pooling}/{name}"]) < TOLERANCE, name
    state = model.state_dict()
    for name, expected in parity.under(f"train/{pooling}/after/").items():
        assert relative_error(state[name], expected) < 1e-4, name
