"""The data sets of DP-CLIP's experiments, by all the names that they go by."""

import re

# By the names of the paper's table: what each shares class names and domain with, all polyp sets and all parts of BMAD being
# one; and other names, of anomalib's data modules, metadata folders and papers, without case and punctuation.
_DATA_SETS = {
    "MVTec-AD": ("mvtec", "mvtec"),
    "VisA": ("visa",),
    "BTAD": ("btad", "btech"),
    "MPDD": ("mpdd",),
    "BrainMRI": ("bmad", "brain"),
    "Liver CT": ("bmad", "liver"),
    "Retina OCT": ("bmad", "retina", "resc", "retinaresc"),
    "ClinicDB": ("colon", "cvcclinicdb", "colonclinicdb"),
    "ColonDB": ("colon", "cvccolondb", "coloncolondb"),
    "CVC-300": ("colon", "coloncvc300"),
    "Kvasir": ("colon", "colonkvasir"),
}


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_PAPER_NAMES = {alias: name for name, (_, *aliases) in _DATA_SETS.items() for alias in (_bare(name), *aliases)}


def paper_name(data_set: str) -> str:
    """Name of a data set in the paper's table; unchanged if it is not there.

    Example:
        >>> paper_name("MVTecAD"), paper_name("Visa"), paper_name("Surfaces")
        ('MVTec-AD', 'VisA', 'Surfaces')
    """
    return _PAPER_NAMES.get(_bare(data_set), data_set)


def data_set_key(data_set: str | None) -> str:
    """One spelling for all names of a data set, to tell whether two names mean the same.

    Example:
        >>> data_set_key("MVTecAD"), data_set_key("Retina"), data_set_key("My parts")
        ('mvtec', 'bmad', 'myparts')
    """
    bare = _bare(data_set or "")
    return _DATA_SETS[_PAPER_NAMES[bare]][0] if bare in _PAPER_NAMES else bare
