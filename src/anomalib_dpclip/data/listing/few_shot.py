"""Few-shot subsets of a labelled set."""

import pandas as pd


def few_shot(samples: pd.DataFrame, shots: int, seed: int) -> pd.DataFrame:
    """Choose k images of each category, half of them anomalous where there are enough.

    An odd k takes one more anomalous image, because those show both kinds of pixel. What is missing of one label is
    made up from the other, and a category of fewer than k images is taken whole. The choice in a category depends on
    its own images alone, and a smaller choice is contained in a larger one, as long as both labels suffice.

    Args:
        samples: One row an image, with columns ``image_path``, ``label_index`` (0 or 1) and ``class_name``.
        shots: Images of each category, k.
        seed: Seed of the choice.

    Raises:
        ValueError: If ``shots`` is not positive.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, not {shots}: it is the number of images of each category")
    numbered = samples.reset_index(drop=True)
    chosen: list[int] = []
    # Sorted, so that the choice doesn't depend on the order in which a file or folder lists its images.
    for _, category in numbered.sort_values("image_path", kind="stable").groupby("class_name"):
        # pandas draws from RandomState, whose numbers NumPy promises never to change.
        shuffled = category.sample(frac=1, random_state=seed)
        anomalous = shuffled.index[shuffled.label_index == 1]
        normal = shuffled.index[shuffled.label_index == 0]
        wanted_anomalous = max((shots + 1) // 2, shots - len(normal))
        chosen += anomalous[:wanted_anomalous].tolist()
        chosen += normal[: shots - min(wanted_anomalous, len(anomalous))].tolist()
    return numbered.loc[sorted(chosen)].reset_index(drop=True)
