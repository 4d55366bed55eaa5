"""Six optimiser steps of the published implementation, met: losses, prototypes and parameters."""

import pytest
import torch
from tests.parity import relative_error

from anomalib_dpclip.method.objective import training_objective
from anomalib_dpclip.method.prototypes import Prototypes


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

    total, decoupled, normals, abnormals = [], [], [], []
    for _ in range(meta["epochs"]):
        for batch in meta["batch"]:
            objective = training_objective(
                model,
                prototypes,
                parity["in/images"][batch],
                masks[batch],
                parity["in/labels"][batch],
                anchors[batch],
                decoupling_weight=recipe["decoupling_weight"],
            )
            optimizer.zero_grad()
            objective.total.backward()
            optimizer.step()
            scheduler.step()
            prototypes.update(objective.directions)
            total.append(objective.total.detach())
            decoupled.append(objective.decoupling.detach())
        normals.append(prototypes.normal.clone())
        abnormals.append(prototypes.abnormal.clone())

    assert relative_error(torch.stack(total), parity[f"train/{pooling}/loss"]) < 1e-5
    assert relative_error(torch.stack(decoupled), parity[f"train/{pooling}/decoupling"]) < 1e-5
    assert relative_error(torch.stack(normals), parity[f"train/{pooling}/proto_normal"]) < 1e-5
    assert relative_error(torch.stack(abnormals), parity[f"train/{pooling}/proto_abnormal"]) < 1e-5
    state = model.state_dict()
    for name, expected in parity.under(f"train/{pooling}/after/").items():
        assert relative_error(state[name], expected) < 1e-4, name
