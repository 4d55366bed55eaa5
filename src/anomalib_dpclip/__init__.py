"""DP-CLIP: zero-shot anomaly detection as a plugin of anomalib.

Names are imported on first use, so that `import anomalib_dpclip` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anomalib_dpclip import _autoload

if TYPE_CHECKING:
    from anomalib_dpclip.adapter_files.save_and_load import load_adapters, save_adapters
    from anomalib_dpclip.data.json_lines import JSONLines
    from anomalib_dpclip.data.mvtec import MVTec
    from anomalib_dpclip.data.photos import Photos
    from anomalib_dpclip.data.surfaces.data_module import Surfaces
    from anomalib_dpclip.method.torch_model import DPCLIPModel
    from anomalib_dpclip.metrics import field_metrics
    from anomalib_dpclip.model.lightning_model import DPCLIP
    from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor

__version__ = "0.1.0"

__all__ = [
    "DPCLIP",
    "DPCLIPModel",
    "DPCLIPPostProcessor",
    "JSONLines",
    "MVTec",
    "Photos",
    "Surfaces",
    "field_metrics",
    "load_adapters",
    "save_adapters",
]

_MODULES = {
    "DPCLIP": "model.lightning_model",
    "DPCLIPModel": "method.torch_model",
    "DPCLIPPostProcessor": "post_processing.post_processor",
    "JSONLines": "data.json_lines",
    "MVTec": "data.mvtec",
    "Photos": "data.photos",
    "Surfaces": "data.surfaces.data_module",
    "field_metrics": "metrics",
    "load_adapters": "adapter_files.save_and_load",
    "save_adapters": "adapter_files.save_and_load",
}

# For whoever has switched torch's own autoloading off; a second registration changes nothing.
_autoload.autoload()


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
