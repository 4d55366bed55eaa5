"""Six optimiser steps of the published implementation, met: losses, prototypes and parameters."""

import pytest
import torch
from tests.conftest import relative_error
from torch.nn import functional

from anomalib_dpclip.anomaly_map import segmentation_logits
from anomalib_dpclip.losses import classification_loss, segmentation_loss
from anomalib_dpclip.prototypes import Prototypes


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
    grid, size = model.backbone.grid, model.backbone.image_size

    total, decoupled, normals, abnormals = [], [], [], []
    for _ in range(meta["epochs"]):
        for batch in meta["batch"]:
            taps, detection = model.features(parity["in/images"][batch])
            mask = masks[batch]
            token_mask = functional.interpolate(mask[:, None].float(), grid, mode="nearest").flatten(1)
            decoupling, directions = prototypes.decoupling_loss(taps, token_mask)
            segmentation = sum(
                segmentation_loss(segmentation_logits(tokens, anchors[batch], grid, size), mask) for tokens in taps
            )
            classification = classification_loss(detection, anchors[batch], parity["in/labels"][batch])
            loss = classification + segmentation + recipe["decoupling_weight"] * decoupling
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            prototypes.update(directions)
            total.append(loss.detach())
            decoupled.append(decoupling.detach())
        normals.append(prototypes.normal.clone())
        abnormals.append(prototypes.abnormal.clone())

    assert relative_error(torch.stack(total), parity[f"train/{pooling}/loss"]) < 1e-5
    assert relative_error(torch.stack(decoupled), parity[f"train/{pooling}/decoupling"]) < 1e-5
    assert relative_error(torch.stack(normals), parity[f"train/{pooling}/proto_normal"]) < 1e-5
    assert relative_error(torch.stack(abnormals), parity[f"train/{pooling}/proto_abnormal"]) < 1e-5
    state = model.state_dict()
    for name, expected in parity.under(f"train/{pooling}/after/").items():
        assert relative_error(state[name], expected) < 1e-4, name
