"""MVTec AD under the name that its paper uses."""

from anomalib.data.datamodules.image.mvtecad import MVTecAD


class MVTec(MVTecAD):
    """MVTec AD: anomalib's `MVTecAD`, with its arguments, under its usual name."""
