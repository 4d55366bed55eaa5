"""The plugin is found in every order of imports, and a broken host or plugin never costs more than a warning.

Only fresh interpreters can show this. One of them is forked once torch is there, to spare each case torch's import.
"""

import importlib
import json
import os
import subprocess
import sys
import textwrap
import types
from importlib.metadata import distribution

import pytest
from tests.metadata_lines import write_lines

from anomalib_dpclip import _autoload, _register

GROUPS = ("anomalib.models", "anomalib.data")

NAMES = """
import sys
print(*(f"{group}.{name}" for group, name in (
    ("models", "DPCLIP"), ("data", "MVTec"), ("data", "Surfaces"), ("data", "JSONLines"), ("data", "Photos"),
) if hasattr(sys.modules.get(f"anomalib.{group}"), name)))
"""
DATA = {"data.MVTec", "data.Surfaces", "data.JSONLines", "data.Photos"}
EVERYTHING = DATA | {"models.DPCLIP"}

ORDERS = {
    # torch's own autoloading is off where these run: `import anomalib_dpclip` must do instead.
    "without the plugin": ("import anomalib.models", set()),
    "plugin first": ("import anomalib_dpclip, anomalib.data, anomalib.models", EVERYTHING),
    "plugin, data alone": ("import anomalib_dpclip, anomalib.data", DATA),
    "our model first": ("from anomalib_dpclip import DPCLIP", EVERYTHING),
    "our items first": ("import anomalib_dpclip.data.items, anomalib.models", EVERYTHING),
    "our export first": ("import anomalib_dpclip.deploy.export", EVERYTHING),
    "our data first": ("import anomalib_dpclip.data.surfaces.data_module, anomalib.models", EVERYTHING),
}

# Stand-ins for an anomalib that is broken, or has none of what we need.
HOSTS = {
    "broken": {"__init__.py": "raise RuntimeError('broken anomalib')"},
    "too old": {
        "__init__.py": "",
        "data/__init__.py": "import anomalib.data.predict",
        "data/predict.py": "",
        "models/__init__.py": "import anomalib.models.video",
        "models/video/__init__.py": "",
    },
}

FORKED = """
import json, os, sys, traceback, warnings
import torch

heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"anomalib", "lightning", "open_clip", "timm", "pandas"})
results = {"loaded by torch": " ".join(heavy)}
import lightning, timm, torchmetrics, torchvision.transforms.v2, pandas, sklearn, cv2, kornia  # shared by all cases
for name, (path, code) in json.load(sys.stdin).items():
    read, write = os.pipe()
    if os.fork() == 0:
        os.dup2(write, 1)
        os.dup2(write, 2)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            if path:
                sys.path.insert(0, path)
            exec(code, {})
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        results[name] = pipe.read()
    os.wait()
print(json.dumps(results))
"""


def run(code, stdin="", **environment):
    environment = {name: value for name, value in os.environ.items() if "TORCH_DEVICE" not in name} | environment
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """What each case printed, by its name."""
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork to try many orders of imports in reasonable time")
    cases = {name: (None, code + NAMES) for name, (code, _) in ORDERS.items()}
    for name, files in HOSTS.items():
        root = tmp_path_factory.mktemp("host")
        for file, content in files.items():
            write_lines(root / "anomalib" / file, [content])
        code = "import anomalib_dpclip, anomalib.data, anomalib.models; print('imported')"
        cases[f"host {name}"] = (str(root), code)
    ours = "print(sorted(name for name in __import__('sys').modules if 'anomalib' in name))"
    cases["hook"] = (None, f"import anomalib_dpclip; {ours}")
    return json.loads(run(FORKED, stdin=json.dumps(cases), TORCH_DEVICE_BACKEND_AUTOLOAD="0").stdout)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_imports(forked, order):
    lines = forked[order].splitlines()
    assert lines, "nothing was printed"
    assert set(lines[-1].split()) == ORDERS[order][1], forked[order]
    assert "could not register" not in forked[order]


def test_a_fresh_interpreter_needs_no_import_by_hand():
    """Also, torch is first imported here while anomalib is half-loaded."""
    process = run(
        """
        import anomalib.data
        assert anomalib.data.MVTec.__name__ == "MVTec"
        from anomalib.models import get_model, list_models
        import anomalib.models
        assert "DPCLIP" in list_models(case="pascal")
        model = get_model({"class_path": "DPCLIP", "init_args": {"backbone": "mini"}})
        assert type(model) is type(get_model("dpclip", backbone="mini")) is anomalib.models.DPCLIP
        """,
    )
    assert "could not register" not in process.stderr


def test_import_torch_loads_nothing_heavy(forked):
    assert forked["loaded by torch"] == ""
    assert forked["hook"].strip() == str(["anomalib_dpclip", "anomalib_dpclip._autoload"])


def test_a_host_that_cannot_be_imported_says_so_itself(forked):
    assert "broken anomalib" in forked["host broken"]
    assert "anomalib_dpclip" not in forked["host broken"]


def test_a_host_that_is_too_old_works_as_without_us(forked):
    output = forked["host too old"]
    assert "imported" in output
    for group in GROUPS:
        assert f"anomalib-dpclip could not register with {group}" in output


def test_what_cannot_be_registered_is_a_warning_and_no_more(monkeypatch):
    importlib.import_module("anomalib.models")  # what is not imported yet is not registered with

    def uninstalled():
        raise LookupError("anomalib-dpclip")

    monkeypatch.setattr(_register, "_own_entry_points", uninstalled)
    with pytest.warns(RuntimeWarning, match="could not register with anomalib.models: LookupError"):
        _register.register(types.ModuleType("anomalib.models"))
    monkeypatch.setitem(sys.modules, "wrapt", None)
    monkeypatch.setitem(sys.modules, "anomalib", types.ModuleType("anomalib"))
    with pytest.warns(RuntimeWarning, match="anomalib-dpclip could not register with anomalib: ModuleNotFoundError"):
        _autoload.autoload()


def test_registering_again_changes_nothing():
    for group in GROUPS:
        importlib.import_module(group)
    before = {group: dict(vars(sys.modules[group])) for group in GROUPS}
    _register.register(types.ModuleType("anomalib.models"))
    assert all(vars(sys.modules[group]) == names for group, names in before.items())


def test_every_entry_point_leads_somewhere():
    for group in GROUPS:
        for point in distribution("anomalib-dpclip").entry_points.select(group=group):
            assert point.load().__name__ == point.name
    [bootstrap] = distribution("anomalib-dpclip").entry_points.select(group="torch.backends")
    assert bootstrap.load() is _autoload.autoload


def test_the_bootstrap_knows_all_modules_with_entry_points():
    points = distribution("anomalib-dpclip").entry_points
    assert set(_autoload.OWN_MODULES) >= {point.module for group in GROUPS for point in points.select(group=group)}
    assert set(_autoload.ANOMALIB_MODULES) == set(_register._READY_AFTER.values())
