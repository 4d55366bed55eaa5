"""Two gloo processes on the CPU learn what one process with the doubled batch learns, and test alike, a lot too."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file
from tests import preloaded
from tests.integration.distributed_training import train
from tests.paths import ROOT
from torch import distributed
from torch.nn import functional

from anomalib_dpclip.method.prototypes import Prototypes

SCRIPT = Path(__file__).parent / "distributed_training.py"


def run_alone(settings):
    assert preloaded.run(train, settings) == 0
    return load_file(settings["output"])


def run_script(settings):
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": paths}
    command = [sys.executable, SCRIPT, json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(settings["output"])


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_equal_one_with_the_doubled_batch(surfaces_root, tmp_path):
    common = {"auxiliary": "Surfaces/brick", "auxiliary_root": str(surfaces_root), "root": str(surfaces_root), "shots": 12}
    one = run_alone(common | {"devices": 1, "strategy": "auto", "batch_size": 4, "output": str(tmp_path / "one.safetensors")})
    two = run_script(common | {"devices": 2, "strategy": "ddp", "batch_size": 2, "output": str(tmp_path / "two.safetensors")})
    assert one.keys() == two.keys()
    assert one["tested/by lot/pixel_AP"] != one["tested/pixel_AP"]
    for name, expected in one.items():
        # A metric counts pairs in order, of which rounding can turn one round.
        tolerance = 1e-4 if name.startswith("tested/") else 1e-5
        torch.testing.assert_close(
            two[name], expected, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def batch_and_mask(anomalous_on):
    """Tokens of four images, and masks that are empty but on some."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(4, 9, 8, generator=generator)
    mask = torch.zeros(4, 9)
    mask[anomalous_on, :3] = 1
    return tokens, mask


def loss_and_gradient(tokens, mask):
    tokens = tokens.clone().requires_grad_()
    prototypes = Prototypes(8, 0.9)
    for _ in range(2):
        loss, directions = prototypes.decoupling_loss([functional.normalize(tokens, dim=-1)], mask)
        prototypes.update(directions)
    (gradient,) = torch.autograd.grad(loss, tokens)
    return loss.detach(), gradient, prototypes.normal, prototypes.abnormal


CASES = {"both ranks": [0, 3], "one rank": [0, 1], "no rank": []}


def worker(rank, port, results):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    half = slice(2 * rank, 2 * rank + 2)
    for name, anomalous_on in CASES.items():
        tokens, mask = batch_and_mask(anomalous_on)
        results[rank, name] = loss_and_gradient(tokens[half], mask[half])
    distributed.destroy_process_group()


def test_decoupling_loss_is_that_of_the_global_batch():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with torch.multiprocessing.get_context("forkserver").Manager() as manager:
        shared = manager.dict()
        torch.multiprocessing.start_processes(worker, (port, shared), nprocs=2, start_method="forkserver")
        results = dict(shared)
    for name, anomalous_on in CASES.items():
        loss, gradient, normal, abnormal = loss_and_gradient(*batch_and_mask(anomalous_on))
        for rank in (0, 1):
            rank_loss, _, rank_normal, rank_abnormal = results[rank, name]
            torch.testing.assert_close(rank_loss, loss, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(rank_normal, normal, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(rank_abnormal, abnormal, atol=1e-6, rtol=1e-5)
        # DDP averages the ranks' gradients; each rank's is that of the summed losses.
        together = torch.cat([results[rank, name][1] for rank in (0, 1)]) / 2
        torch.testing.assert_close(together, gradient, atol=1e-6, rtol=1e-4)
        assert name == "no rank" or gradient.abs().max() > 0
