"""Which seed DPCLIP learns with where its arguments name none."""

import os

DEFAULT_SEED = 111
"""Of the published training."""

LIGHTNING_DEFAULT_SEED = 0
"""What anomalib's command line sets where nobody asks for a seed; it cannot be told apart from asking for 0."""


def seed_or_global(seed: int | None) -> int:
    """The seed given, else the global one that `lightning.seed_everything` has set, else `DEFAULT_SEED`.

    Args:
        seed: Argument of the model.
    """
    if seed is not None:
        return seed
    global_seed = int(os.environ.get("PL_GLOBAL_SEED", LIGHTNING_DEFAULT_SEED))
    return DEFAULT_SEED if global_seed == LIGHTNING_DEFAULT_SEED else global_seed
