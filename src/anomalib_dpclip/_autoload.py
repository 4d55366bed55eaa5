"""Entry point of group ``torch.backends``, which torch runs at the end of `import torch`.

The only moment early enough to register with anomalib without anybody importing this package. It may never raise (that
would break every `import torch`), and imports nothing but wrapt: registration waits until anomalib itself is imported.
"""

# The last imports of `anomalib.data` and `anomalib.models`: all that registration needs is there by then. A hook on the
# packages themselves would come too early, since torch is first imported while they are half-loaded.
HOST_MODULES = ("anomalib.data.predict", "anomalib.models.video")

# Where one of these is imported first it imports anomalib itself, whose hook then finds it half-loaded; its own comes after.
OWN_MODULES = (
    "anomalib_dpclip.checkpoint_retention",
    "anomalib_dpclip.data.items",
    "anomalib_dpclip.data.json_lines",
    "anomalib_dpclip.data.mvtec",
    "anomalib_dpclip.data.photos",
    "anomalib_dpclip.data.surfaces",
    "anomalib_dpclip.export",
    "anomalib_dpclip.lightning_model",
)


def autoload() -> None:
    """Ask to be called when anomalib's data and models have been imported."""
    try:
        import wrapt

        for module in (*HOST_MODULES, *OWN_MODULES):
            wrapt.register_post_import_hook("anomalib_dpclip._register:register", module)
    except Exception as error:  # noqa: BLE001  (whatever it is, `import torch` must go on)
        import warnings

        warnings.warn(f"anomalib-dpclip could not register with anomalib: {error!r}", RuntimeWarning, stacklevel=2)
