"""The data sets of DP-CLIP's experiments, by all the names they go by.

DP-CLIP (Feature Decoupling and Channel Purification), experiments.
"""

import re
from typing import NamedTuple


class DataSet(NamedTuple):
    """A data set of the paper's table.

    Attributes:
        key: What it shares class names and domain with: all polyp sets are one, and so are the parts of BMAD.
        aliases: Other names, of anomalib's data modules, metadata folders and papers, without case and punctuation.
    """

    key: str
    aliases: tuple[str, ...] = ()


DATA_SETS = {
    "MVTec-AD": DataSet("mvtec", ("mvtec",)),
    "VisA": DataSet("visa"),
    "BTAD": DataSet("btad", ("btech",)),
    "MPDD": DataSet("mpdd"),
    "BrainMRI": DataSet("bmad", ("brain",)),
    "Liver CT": DataSet("bmad", ("liver",)),
    "Retina OCT": DataSet("bmad", ("retina", "resc", "retinaresc")),
    "ClinicDB": DataSet("colon", ("cvcclinicdb", "colonclinicdb")),
    "ColonDB": DataSet("colon", ("cvccolondb", "coloncolondb")),
    "CVC-300": DataSet("colon", ("coloncvc300",)),
    "Kvasir": DataSet("colon", ("colonkvasir",)),
}
"""By the names of the paper's table."""


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
        >>> data_set_key("MVTecAD") == data_set_key("MVTec")
        True
    """
    bare = _bare(data_set or "")
    return DATA_SETS[_PAPER_NAMES[bare]].key if bare in _PAPER_NAMES else bare


def is_known(data_set: str | None) -> bool:
    """Whether a data set is one of the experiments, or BMAD as a whole."""
    bare = _bare(data_set or "")
    return bare in _PAPER_NAMES or bare in {known.key for known in DATA_SETS.values()}


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_PAPER_NAMES = {alias: name for name, known in DATA_SETS.items() for alias in (_bare(name), *known.aliases)}
