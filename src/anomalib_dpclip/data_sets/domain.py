"""The two domains of the method, and which data set is of which."""

from typing import Literal

from anomalib_dpclip.data_sets.names import data_set_key, is_known

Domain = Literal["industrial", "medical"]

_MEDICAL = {"bmad", "colon"}


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
