"""The two domains of the method: what differs between industrial and medical images, and which data set is which.

DP-CLIP (Feature Decoupling and Channel Purification), inference: blur and score fusion differ between industrial and
medical images.
"""

from typing import Literal, NamedTuple

from anomalib_dpclip.method.data_sets import data_set_key, is_known

Domain = Literal["industrial", "medical"]

_MEDICAL = {"bmad", "colon"}


class Blur(NamedTuple):
    """Gaussian smoothing of a map on the token grid, reflected at the border."""

    kernel_size: int
    sigma: float


BLUR: dict[Domain, Blur] = {"industrial": Blur(7, 1.0), "medical": Blur(9, 1.5)}


DEFAULT_DOMAIN: Domain = "industrial"
"""Where nothing says which."""


def domain_of(data_set: str | None) -> Domain | None:
    """Domain whose blur and image score a data set asks for; ``None`` for one that is not the method's.

    Example:
        >>> domain_of("BMAD"), domain_of("VisA"), domain_of("my photos")
        ('medical', 'industrial', None)
    """
    if not is_known(data_set):
        return None
    return "medical" if data_set_key(data_set) in _MEDICAL else "industrial"
