"""Models that answer at once and fail on demand, for tests of the benchmark."""

from types import MappingProxyType
from typing import ClassVar

import torch
from anomalib import LearningType
from anomalib.data import InferenceBatch
from anomalib.models import AnomalibModule
from anomalib.post_processing import PostProcessor


class Brightness(AnomalibModule):
    """Zero-shot: bright pixels are anomalous. Fails on demand."""

    failing: ClassVar[set[str]] = set()

    def __init__(self, name: str = "plain"):
        super().__init__()
        self.model = torch.nn.Identity()
        self.job = name

    learning_type = LearningType.ZERO_SHOT
    trainer_arguments = MappingProxyType({})

    def configure_post_processor(self):
        return PostProcessor(image_sensitivity=0.6, pixel_sensitivity=0.6)  # else it misses the score that sets the threshold

    def validation_step(self, batch, *args):
        if self.job in self.failing:
            raise RuntimeError("broken\non purpose")
        maps = batch.image.mean(dim=1).sigmoid()
        return batch.update(**InferenceBatch(anomaly_map=maps, pred_score=maps.amax(dim=(1, 2)))._asdict())

    test_step = validation_step


class Steps(Brightness):
    """Learns from normal images, in steps; scores above 1 until a validation has shown their range."""

    learning_type = LearningType.ONE_CLASS

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def training_step(self, batch, *args):
        return self.weight * batch.image.mean()

    def validation_step(self, batch, *args):
        batch = super().validation_step(batch)
        return batch.update(pred_score=batch.pred_score + 2)

    test_step = validation_step
