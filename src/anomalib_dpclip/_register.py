"""Adds this package's names to anomalib's namespaces: the only file that touches them. Idempotent, and it never raises."""

import sys
import warnings
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, distribution
from types import ModuleType

# A package of anomalib, and its last submodule, after which our own modules can be imported.
_READY_AFTER = {"anomalib.data": "anomalib.data.predict", "anomalib.models": "anomalib.models.video"}


def register(module: ModuleType) -> None:
    """Load our own entry points into anomalib's packages of the same names, as far as those are imported by now.

    The names are declared as entry points, so that a loader of anomalib's own would find the same ones.
    """
    del module
    for group, last_submodule in _READY_AFTER.items():
        if last_submodule not in sys.modules:
            continue
        try:
            package = sys.modules[group]
            for entry_point in _own_entry_points().select(group=group):
                if not _is_half_loaded(entry_point):
                    setattr(package, entry_point.name, entry_point.load())
        except ImportError as error:
            # Whatever of ours is being imported at this moment may be what is missing: its own hook calls again.
            if not _own_import_under_way():
                _warn(group, error)
        except Exception as error:  # noqa: BLE001  (whatever it is, anomalib must work as without this package)
            _warn(group, error)


@cache  # one reading of the metadata for all the hooks
def _own_entry_points() -> EntryPoints:
    return distribution("anomalib-dpclip").entry_points


def _warn(group: str, error: Exception) -> None:
    warnings.warn(f"anomalib-dpclip could not register with {group}: {error!r}", RuntimeWarning, stacklevel=3)


def _own_import_under_way() -> bool:
    own = [module for name, module in sys.modules.items() if name.startswith("anomalib_dpclip.")]
    return any(getattr(module.__spec__, "_initializing", False) for module in own)


def _is_half_loaded(entry_point: EntryPoint) -> bool:
    """Whether our module is being imported at this moment: then its own hook will call again."""
    module = sys.modules.get(entry_point.module)
    return module is not None and not hasattr(module, entry_point.attr)
