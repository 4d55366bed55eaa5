"""Adds this package's names to anomalib's namespaces: the only file that touches them. Idempotent, and it never raises."""

import sys
import warnings
from importlib.metadata import distribution
from types import ModuleType


def register_data(module: ModuleType) -> None:
    """Add our data modules to `anomalib.data`; called after the import of its last submodule."""
    del module
    _register("anomalib.data")


def register_models(module: ModuleType) -> None:
    """Add our models to `anomalib.models`; called after the import of its last submodule."""
    del module
    _register("anomalib.models")


def _register(group: str) -> None:
    """Load our own distribution's entry points of a group into the package of the same name.

    The names are declared as entry points, so that a loader of the host's own would find the same ones.
    """
    try:
        package = sys.modules[group]
        for entry_point in distribution("anomalib-dpclip").entry_points.select(group=group):
            setattr(package, entry_point.name, entry_point.load())
    except Exception as error:  # noqa: BLE001  (whatever it is, anomalib must work as without this package)
        warnings.warn(f"anomalib-dpclip could not register with {group}: {error!r}", RuntimeWarning, stacklevel=2)
