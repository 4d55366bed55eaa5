"""Which images of each category are chosen."""

import numpy as np
import pandas as pd
import pytest

from anomalib_dpclip.data.listing.metadata import few_shot


@pytest.fixture
def samples():
    counts = {"a": (10, 6), "b": (2, 9)}
    rows = [
        (name, label, f"{label}{index:02}") for name, of in counts.items() for label in (0, 1) for index in range(of[label])
    ]
    return pd.DataFrame(rows, columns=["class_name", "label_index", "image_path"])


def rows_of(samples):
    return set(map(tuple, samples.to_numpy()))


@pytest.mark.parametrize(
    ("shots", "of_a", "of_b"),
    [
        (1, (0, 1), (0, 1)),
        (3, (1, 2), (1, 2)),
        (4, (2, 2), (2, 2)),
        (8, (4, 4), (2, 6)),  # b has 2 normal images only
        (14, (8, 6), (2, 9)),  # a has 6 anomalous ones; b has 11 images in all
    ],
)
def test_half_of_each_category_is_anomalous_where_there_are_enough(samples, shots, of_a, of_b):
    counts = few_shot(samples, shots, seed=0).groupby(["class_name", "label_index"]).size()
    assert [tuple(counts.get((name, label), 0) for label in (0, 1)) for name in "ab"] == [of_a, of_b]


def test_the_choice_depends_on_neither_order_nor_other_categories_and_grows(samples):
    chosen = rows_of(few_shot(samples, 4, seed=3))
    assert rows_of(few_shot(samples[::-1], 4, seed=3)) == chosen
    alone = few_shot(samples[samples.class_name == "a"], 4, seed=3)
    assert rows_of(alone) == {row for row in chosen if row[0] == "a"}
    assert rows_of(few_shot(samples, 2, seed=3)) < chosen


def test_the_choice_follows_from_numpys_frozen_generator(samples):
    """Files made by one version are made again by all later ones."""
    a = samples[samples.class_name == "a"].sort_values("image_path").image_path.to_numpy()
    shuffled = a[np.random.RandomState(111).permutation(16)]  # the frozen one
    assert shuffled[:4].tolist() == ["104", "007", "005", "100"]
    chosen = few_shot(samples[samples.class_name == "a"], 4, seed=111)
    assert chosen.image_path.tolist() == ["005", "007", "100", "104"]


def test_no_shots(samples):
    with pytest.raises(ValueError, match="shots must be at least 1, not 0"):
        few_shot(samples, 0, seed=0)
