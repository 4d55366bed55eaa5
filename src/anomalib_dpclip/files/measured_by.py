"""Where a measurement comes from: the commit, versions and machine that every file of results names."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("anomalib-dpclip", "anomalib", "lightning", "torch", "open_clip_torch")


def measured_by(command: str) -> dict[str, str]:
    """Command to type to measure again, commit, versions and machine, in words."""
    versions = {"python": platform.python_version()} | package_versions()
    return {
        "command": command,
        "commit": _commit(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "machine": _machine(),
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: version(name) for name in PACKAGES}


def _commit() -> str:
    """Commit of the checkout that this file belongs to, ``-dirty`` with changes; none for an installed wheel."""
    git = ["git", "-C", str(Path(__file__).parent)]
    is_tracked = ["ls-files", "--error-unmatch", Path(__file__).name]  # an environment may lie inside another repository
    describe = ["describe", "--always", "--dirty", "--abbrev=12"]
    try:
        for command in (is_tracked, describe):
            done = subprocess.run(git + command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"
    return done.stdout.strip()


def _machine() -> str:
    import torch

    # Linux names the processor only here; platform.processor() gives the architecture or nothing.
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = named[0] if named else platform.processor() or platform.machine()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([platform.system(), processor, f"{os.cpu_count()} CPUs, {torch.get_num_threads()} threads", *gpus])
