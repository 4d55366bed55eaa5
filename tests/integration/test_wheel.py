"""What is published: the wheel holds the package with its data, and nothing that only makes or measures it."""

import subprocess
import sys
from zipfile import ZipFile

import pytest
from tests.paths import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as a release makes it: from the source distribution."""
    pytest.importorskip("hatchling", reason="the wheel is built without a network, so hatchling must be there")
    if not (ROOT / "src").is_dir():
        pytest.skip("the wheel that these tests run on was built elsewhere")
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    with ZipFile(path) as archive:
        yield archive


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel):
    package = ROOT / "src" / "anomalib_dpclip"
    ours = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    (metadata,) = {name.split("/")[0] for name in wheel.namelist()} - {"anomalib_dpclip"}
    assert metadata.endswith(".dist-info")
    assert {name for name in wheel.namelist() if not name.startswith(metadata)} == ours
    assert {"anomalib_dpclip/py.typed", "anomalib_dpclip/clip/mini/mini_clip.safetensors"} <= ours


def test_its_commands_are_those_of_the_package(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entry_points = wheel.read(name).decode().splitlines()
    assert {"dpclip = anomalib_dpclip.cli:main", "anomalib_dpclip = anomalib_dpclip._autoload:autoload"} <= set(entry_points)
