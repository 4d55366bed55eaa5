"""Under which licences the data sets are that adapters learn from, as their authors and anomalib state them."""

from anomalib_dpclip.method.data_sets import data_set_key

_NON_COMMERCIAL = "cc-by-nc-sa-4.0"
_LICENCES = {
    "surfaces": "apache-2.0",
    "visa": "cc-by-4.0",
    "mvtec": _NON_COMMERCIAL,
    "mpdd": _NON_COMMERCIAL,
    "btad": _NON_COMMERCIAL,
    "bmad": _NON_COMMERCIAL,
}
"""By `data_set_key`, in the hub's spelling."""

_STRICTEST_LAST = ("apache-2.0", "cc-by-4.0", _NON_COMMERCIAL)


def licence_of(data_set: str) -> str | None:
    """Licence of a data set; ``None`` if it is not known here.

    Example:
        >>> licence_of("VisA"), licence_of("MVTecAD"), licence_of("my photos")
        ('cc-by-4.0', 'cc-by-nc-sa-4.0', None)
    """
    return _LICENCES.get(data_set_key(data_set))


def strictest_licence(data_sets: list[str]) -> str | None:
    """The strictest of the licences of some data sets; ``None`` if one is not known, or there is none."""
    licences = [licence_of(each) for each in data_sets]
    if not licences or None in licences:
        return None
    return max(licences, key=_STRICTEST_LAST.index)  # type: ignore[arg-type]  # none of them is None
