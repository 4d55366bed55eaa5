"""The training step that speed is compared with computes the same loss: it differs in what it costs, and in nothing else."""

import torch
from benchmarks import baseline
from tests.tiny_clip import tiny_model

from anomalib_dpclip.method.objective import training_objective
from anomalib_dpclip.method.prototypes import Prototypes


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 24, 24, generator=generator)
    mask = torch.zeros(3, 24, 24, dtype=torch.bool)
    mask[::2, 6:15, 3:12] = True
    anchors = torch.nn.functional.normalize(torch.randn(3, 8, 2, generator=generator), dim=1)
    return images, mask, mask.flatten(1).any(1).long(), anchors


def test_loss_and_gradients_of_the_baseline_are_those_of_the_product():
    ours, published = tiny_model().train(), tiny_model().train()
    baseline.thaw(published)
    own_prototypes, published_prototypes = Prototypes(8), Prototypes(8)
    for _ in range(2):  # the first step sets the prototypes, the second is held against them
        own = training_objective(ours, own_prototypes, *batch())
        loss = baseline.loss(published, published_prototypes, *batch())
        assert own.decoupling > 0
        torch.testing.assert_close(loss, own.total, rtol=1e-5, atol=0)
        ours.zero_grad()
        published.zero_grad()
        own.total.backward()
        loss.backward()
        blocks = published.backbone.visual.transformer.resblocks  # the frozen tower, whose gradients it pays for
        assert all(block.attn.attention.in_proj_weight.grad is not None for block in blocks)
        gradients = {name: parameter.grad for name, parameter in published.named_parameters()}
        learned = {name: parameter.grad for name, parameter in ours.named_parameters() if parameter.requires_grad}
        assert {name.split(".")[0] for name in learned} == {prefix.rstrip(".") for prefix in ours.adapter_prefixes}
        for name, gradient in learned.items():
            assert gradient.abs().max() > 0, name
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max().item(), msg=name)
        with torch.no_grad():
            for model in (ours, published):
                for name, gradient in learned.items():
                    model.get_parameter(name).sub_(0.1 * gradient)
