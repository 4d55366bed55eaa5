import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from tests.tiny_scorers import tiny_batch_scorer
from torch.utils.data import DataLoader, DistributedSampler

from anomalib_dpclip.data.photos import PhotosDataset
from anomalib_dpclip.scorers import batch_scorer
from anomalib_dpclip.scorers.batch_scorer import choose_panel, mutual_distances, panel_loader, random_projection


@pytest.mark.parametrize("images", [2, 5, 12])
def test_distances_are_the_lowest_of_the_nearest_neighbours_in_each_other_image(images):
    tokens = np.random.default_rng(0).normal(size=(images, 6, 8))
    batch = torch.tensor(tokens).float()
    found = mutual_distances(batch, batch, range(images))
    counted = max(1, round(0.2 * (images - 1)))
    for i in range(images):
        nearest = [NearestNeighbors(n_neighbors=1).fit(tokens[j]).kneighbors(tokens[i])[0][:, 0] for j in range(images)]
        others = nearest[:i] + nearest[i + 1 :]
        assert np.abs(found[i].numpy() - np.sort(others, axis=0)[:counted].mean(0)).max() < 1e-5
    outside = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))  # compared with all of the panel
    expected = torch.cdist(outside, batch).amin(-1).sort(dim=0).values[: max(1, round(0.2 * images))].mean(0)
    torch.testing.assert_close(mutual_distances(outside, batch, [None])[0], expected, rtol=1e-4, atol=1e-5)


def test_the_panel_is_repeatable_bounded_and_from_everywhere():
    panel = choose_panel(401, seed=1, size=200)
    assert len(set(panel)) == 200
    assert panel == sorted(panel) == choose_panel(401, seed=1, size=200)
    assert panel != choose_panel(401, seed=2, size=200)
    assert choose_panel(3, seed=1) == [0, 1, 2]


def test_every_process_sees_the_same_panel():
    data, panels = list(range(500)), []
    for rank in (0, 1):
        loader = DataLoader(data, 8, sampler=DistributedSampler(data, num_replicas=2, rank=rank))
        panels.append(torch.cat(list(panel_loader(loader, seed=1))).tolist())
    assert panels[0] == panels[1]
    assert len(set(panels[0])) == 200


def test_the_panel_of_photos_that_are_left_is_of_all_of_them(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(4)]
    for number, path in enumerate(paths):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    everything = PhotosDataset(paths)
    left = PhotosDataset(paths[3:], whole=everything)
    loader = panel_loader(DataLoader(left, 2, collate_fn=left.collate_fn), seed=1)
    assert [path for batch in loader for path in batch.image_path] == paths


def test_a_random_projection_keeps_distances():
    tokens = torch.randn(100, 1024, generator=torch.Generator().manual_seed(0))
    assert random_projection(tokens[:, :128], 0).shape == (100, 128)
    ratio = random_projection(tokens, 0).norm(dim=1) / tokens.norm(dim=1)
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.std() < 0.1


def photos(count):
    """Soft photos, the last of them with a defect if there are enough."""
    generator = torch.Generator().manual_seed(0)
    images = 0.4 + 0.05 * torch.rand(count, 3, 24, 24, generator=generator)
    if count > 2:
        images[-1, :, 8:16, 8:16] = torch.tensor([1.0, 0, 1]).view(3, 1, 1)
    return [ImageItem(image=image, image_path=f"{number}.png") for number, image in enumerate(images)]


@torch.no_grad()
def score(scorer, items):
    batch = ImageBatch.collate(items)
    return scorer.score(batch.image, scorer.comparison.text.model.anchors, batch.image_path)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_batch_of_few_images_has_finite_scores(count):
    prediction = score(tiny_batch_scorer(photos(count)), photos(count))
    for values in prediction.anomaly_map, prediction.pred_score:
        assert ((values > 0) & (values < 1)).all()
    if count > 2:
        assert prediction.pred_score.argmax() == count - 1


def test_one_image_cannot_be_compared(caplog):
    scorer = tiny_batch_scorer(photos(1))
    assert not scorer.is_prepared
    assert "a lot of less than two images cannot be compared with itself" in caplog.text
    with pytest.raises(RuntimeError, match="prepare the scorer with its loaders first"):
        score(scorer, photos(1))


def test_an_image_of_the_panel_has_the_score_of_its_own_wherever_it_is_scored(monkeypatch):
    items = photos(9)
    scorer = tiny_batch_scorer(items)
    together = score(scorer, items)
    alone = torch.cat([score(scorer, [item]).pred_score for item in items])
    torch.testing.assert_close(alone, together.pred_score, atol=1e-6, rtol=0)
    torch.testing.assert_close(scorer.image_statistics().detection, together.pred_score, atol=1e-6, rtol=0)
    monkeypatch.setattr(batch_scorer.choose_panel, "__defaults__", (5,))
    some = tiny_batch_scorer(items)
    assert len(some.image_statistics().map_max) == 5
    alone = torch.cat([score(some, [item]).pred_score for item in items])
    torch.testing.assert_close(alone, score(some, items).pred_score, atol=1e-5, rtol=0)
