"""The contact sheet of a test run: one picture of its mistakes, its narrow decisions and its clear ones."""

import heapq
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from anomalib.data import ImageBatch, ImageItem
from anomalib.visualization.image.functional import get_visualize_function
from lightning.pytorch import Callback, LightningModule, Trainer
