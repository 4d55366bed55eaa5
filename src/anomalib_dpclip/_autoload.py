"""Entry point of group ``torch.backends``, which torch runs at the end of `import torch`.

The only moment early enough to register with anomalib without anybody importing this package. It may never raise (that
would break every `import torch`) and imports nothing: whoever never imports anomalib pays a millisecond. Even wrapt, which
tells when anomalib's modules have been imported, waits until the first of them is asked for.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

# The last imports of `anomalib.data` and `anomalib.models`: all that registration needs is there by then. A hook on the
# packages themselves would come too early, since torch is first imported while they are half-loaded.
ANOMALIB_MODULES = ("anomalib.data.predict", "anomalib.models.video")

# What anomalib's command line imports after it has arranged for its own tracebacks.
COMMAND_LINE = "lightning.pytorch.cli"

# Where one of these is imported first it imports anomalib itself, whose hook then finds it half-loaded; its own comes after.
OWN_MODULES = (
    "anomalib_dpclip.callbacks.checkpoint_io",
    "anomalib_dpclip.data.items",
    "anomalib_dpclip.data.json_lines",
    "anomalib_dpclip.data.mvtec",
    "anomalib_dpclip.data.photos",
    "anomalib_dpclip.data.surfaces.data_module",
    "anomalib_dpclip.deploy.export",
    "anomalib_dpclip.model.training.learning",
    "anomalib_dpclip.model.lightning_model",
)


class AnomalibImport:
    """Finder that notices the first import of anomalib, or of a module of this package, asks for the hooks and is gone."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Leave every module to the other finders; wrapt's is among them from the first one on that concerns us."""
        del path, target
        if name != "anomalib" and name not in OWN_MODULES:
            return None
        if self in sys.meta_path:  # another thread may have been faster
            sys.meta_path.remove(self)
            _ask_for_hooks()
        return find_spec(name)


def autoload() -> None:
    """Ask to be called when anomalib's data and models have been imported."""
    if "anomalib" in sys.modules:  # torch is first imported while anomalib is half-loaded, or anomalib came without us
        _ask_for_hooks()
    elif not any(isinstance(finder, AnomalibImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, AnomalibImport())


def _ask_for_hooks() -> None:
    try:
        import wrapt

        for module in (*ANOMALIB_MODULES, *OWN_MODULES):
            wrapt.register_post_import_hook("anomalib_dpclip._register:register", module)
        wrapt.register_post_import_hook("anomalib_dpclip.callbacks.user_errors:say_last", COMMAND_LINE)
    except Exception as error:  # noqa: BLE001  (whatever it is, the import under way must go on)
        import warnings

        warnings.warn(f"anomalib-dpclip could not register with anomalib: {error!r}", RuntimeWarning, stacklevel=2)
