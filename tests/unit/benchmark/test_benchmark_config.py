"""Benchmark configs: what they expand to, and which of their jobs share one training."""

from tests import paths

from anomalib_dpclip.benchmark.config import job_configs, read_config

CONFIGS = paths.CONFIGS / "benchmark"


def test_models_that_differ_in_tiles_alone_share_one_training(monkeypatch):
    monkeypatch.delenv("DPCLIP_WEIGHTS", raising=False)
    jobs = job_configs(read_config(CONFIGS / "large_images.yaml"), "cpu")
    assert [(job.label, job.category) for job in jobs] == [
        (label, category) for label in ("resized", "tiles=4", "tiles=8") for category in ("weave", "brushed_metal")
    ]
    assert [job.model["init_args"].get("tiles", 1) for job in jobs] == [1, 1, 4, 4, 8, 8]
    assert len({job.training_key for job in jobs}) == 1
    assert len({job.key for job in jobs}) == 6

    jobs[0].model["init_args"]["learning_rate"] = 1.0
    assert jobs[0].training_key != jobs[5].training_key


def test_what_is_known_of_the_target_does_not_change_what_is_learned():
    jobs = job_configs(read_config(CONFIGS / "surfaces_comparison.yaml"), "cpu")
    learning = [job for job in jobs if job.model.get("init_args", {}).get("temperature") == "backbone"]
    assert len({job.label for job in learning}) == 4
    assert len({job.training_key for job in learning}) == len({job.seed for job in learning}) == 3
    assert all(not {"k_shot", "lot"} & job.training.model["init_args"].keys() for job in learning)


def test_given_adapters_need_no_training(monkeypatch):
    monkeypatch.setenv("DPCLIP_WEIGHTS", "adapters.safetensors")
    assert all(job.training_key is None for job in job_configs(read_config(CONFIGS / "large_images.yaml"), "cpu"))
