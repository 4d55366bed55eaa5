"""Which images of each category are chosen."""

import numpy as np
import pandas as pd
import pytest

from anomalib_dpclip.data.listing.metadata import few_shot


class TestFewShot:
    @pytest.fixture
    def samples(self):
        rows = [("a", label, f"{label}{index:02}") for label, count in ((0, 10), (1, 6)) for index in range(count)]
        rows += [("b", label, f"{label}{index:02}") for label, count in ((0, 2), (1, 9)) for index in range(count)]
        return pd.DataFrame(rows, columns=["class_name", "label_index", "image_path"])

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
    def test_half_of_each_category_is_anomalous_where_there_are_enough(self, samples, shots, of_a, of_b):
        counts = few_shot(samples, shots, seed=0).groupby(["class_name", "label_index"]).size()
        for name, (normal, anomalous) in (("a", of_a), ("b", of_b)):
            assert (counts.get((name, 0), 0), counts.get((name, 1), 0)) == (normal, anomalous)

    def test_the_choice_does_not_depend_on_order_or_other_categories(self, samples):
        chosen = set(map(tuple, few_shot(samples, 4, seed=3).to_numpy()))
        assert set(map(tuple, few_shot(samples[::-1], 4, seed=3).to_numpy())) == chosen
        alone = few_shot(samples[samples.class_name == "a"], 4, seed=3)
        assert set(map(tuple, alone.to_numpy())) == {row for row in chosen if row[0] == "a"}

    def test_more_shots_contain_fewer(self, samples):
        four, two = (set(map(tuple, few_shot(samples, shots, seed=5).to_numpy())) for shots in (4, 2))
        assert two < four

    def test_the_choice_follows_from_numpys_frozen_generator(self, samples):
        """Files made by one version are made again by all later ones."""
        a = samples[samples.class_name == "a"].sort_values("image_path").image_path.to_numpy()
        shuffled = a[np.random.RandomState(111).permutation(16)]  # the frozen one
        assert shuffled[:4].tolist() == ["104", "007", "005", "100"]
        chosen = few_shot(samples[samples.class_name == "a"], 4, seed=111)
        assert chosen.image_path.tolist() == ["005", "007", "100", "104"]

    def test_no_shots(self, samples):
        with pytest.raises(ValueError, match="shots must be at least 1, not 0"):
            few_shot(samples, 0, seed=0)
