"""Scoring by the text alone, as the paper does; large images tile by tile, and nothing where a region is ignored."""

from collections.abc import Sequence

from anomalib.data import InferenceBatch
from torch import Tensor

from anomalib_dpclip.method.anomaly_map import anomaly_map, resize_map
from anomalib_dpclip.method.torch_model import DPCLIPModel, TextEvidence, require_size
from anomalib_dpclip.post_processing.scale import DETECTION_WEIGHT
from anomalib_dpclip.pre_processing.resize import resize_bilinear
from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.scorer import Scorer
from anomalib_dpclip.scorers.tiling import TILES_AT_ONCE, predict_tiled


class TextScorer(Scorer):
    """The paper's scores.

    Args:
        model: The paper's model.
        region: What is scored of an image.
        tiles: Times the backbone's height and width that images have; they are seen in overlapping tiles.
        image_size: Height and width of the images that `score` takes, where a second network wants larger ones than this.
    """

    name = "text"

    def __init__(self, model: DPCLIPModel, region: Region, tiles: int = 1, image_size: tuple[int, int] | None = None) -> None:
        self.model, self.region, self.tiles = model, region, tiles
        height, width = model.backbone.image_size
        self._own_size = (tiles * height, tiles * width)
        self._image_size = image_size or self._own_size

    @property
    def detection_weight(self) -> float:  # type: ignore[override]
        """See `Scorer`: that of the domain."""
        return DETECTION_WEIGHT[self.model.domain]

    @property
    def image_size(self) -> tuple[int, int]:
        """See `Scorer.image_size`."""
        return self._image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of an image."""
        rows, columns = self.model.backbone.grid
        return self.tiles * rows, self.tiles * columns

    def evidence(self, images: Tensor, anchors: Tensor) -> TextEvidence:
        """What the text says of each token of images ``(B, 3, H, W)``, seen whole and painted over, before the blur."""
        return self.model.evidence(self._resized(images), anchors)

    def blurred(self, margin: Tensor) -> Tensor:
        """Margins ``(B, rows, columns)``, blurred without what is ignored."""
        return self.region.smooth(margin, self.model.blur)

    def score(self, images: Tensor, anchors: Tensor, paths: Sequence[str] | None = None) -> InferenceBatch:
        """See `Scorer.score`; images of another size are a `ValueError`."""
        del paths
        require_size(images, self.image_size, "image_size or tiles")
        painted = self._resized(self.region.paint_over(images))
        if self.tiles == 1:  # tiling would give the same; exported models keep the simpler graph
            margin, score = self._score_tile(painted, anchors)
        else:
            # Where the GRN pools over the batch, a tile may only see the same tile of the other images.
            at_once = 1 if self.model.grn_pooling == "batch" else TILES_AT_ONCE
            margin, score = predict_tiled(self._score_tile, painted, anchors, self.model.backbone.grid, self.tiles, at_once)
        maps = self.region.hide(anomaly_map(resize_map(self.blurred(margin), self.image_size)))
        return InferenceBatch(anomaly_map=maps, pred_score=score)

    def _resized(self, images: Tensor) -> Tensor:
        return images if tuple(images.shape[-2:]) == self._own_size else resize_bilinear(images, self._own_size)

    def _score_tile(self, images: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        evidence = self.model.evidence(images, anchors)
        return evidence.margin, evidence.score
