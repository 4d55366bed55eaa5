"""The two domains of the method, and which data set is of which."""

from typing import Literal

from anomalib_dpclip.data_sets.names import data_set_key

Domain = Literal["industrial", "medical"]

DEFAULT_DOMAIN: Domain = "industrial"
"""Where nothing says which."""

_INDUSTRIAL, _MEDICAL = {"mvtec", "visa", "btad", "mpdd"}, {"bmad", "colon"}


def domain_of(data_set: str | None) -> Domain | None:
    """Domain whose blur and image score a data set asks for; ``None`` for one that is not the method's.

    Example:
        >>> domain_of("BMAD"), domain_of("VisA"), domain_of("my photos")
        ('medical', 'industrial', None)
    """
    key = data_set_key(data_set)
    if key in _MEDICAL:
        return "medical"
    return "industrial" if key in _INDUSTRIAL else None
