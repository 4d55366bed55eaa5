"""Entry point of group ``torch.backends``, which torch runs at the end of `import torch`.

The only moment early enough to register with anomalib without anybody importing this package. It may never raise (that
would break every `import torch`), and imports nothing but wrapt: registration waits until anomalib itself is imported.
"""


def autoload() -> None:
    """Ask to be called when anomalib's last data and model modules have been imported."""
    try:
        import wrapt

        # The last imports of `anomalib.data` and `anomalib.models`: all that registration needs is there by then. A hook
        # on the packages themselves would come too early, since torch is first imported while they are half-loaded.
        wrapt.register_post_import_hook("anomalib_dpclip._register:register_data", "anomalib.data.predict")
        wrapt.register_post_import_hook("anomalib_dpclip._register:register_models", "anomalib.models.video")
    except Exception as error:  # noqa: BLE001  (whatever it is, `import torch` must go on)
        import warnings

        warnings.warn(f"anomalib-dpclip could not register with anomalib: {error!r}", RuntimeWarning, stacklevel=2)
