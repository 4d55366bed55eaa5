"""What to do about a target that is neither on disk nor to be downloaded."""

from pathlib import Path
from urllib.error import URLError

from lightning.pytorch import Callback, LightningModule, Trainer


class MissingTarget(Callback):
    """Turns the bare network error of a data module's download into one that names the data and the remedy."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what could not be downloaded; the model's own downloads end in errors of their own.

        Raises:
            FileNotFoundError: In place of the network error.
        """
        del pl_module
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(exception, URLError) and datamodule is not None:
            name, root = type(datamodule).__name__, Path(getattr(datamodule, "root", ".")).resolve()
            raise FileNotFoundError(
                f"the data set {name} is not in {root} and could not be downloaded ({exception.reason}). Point to it with "
                f"--data.root, or fetch it elsewhere; to try without any download: --data Surfaces"
            ) from exception
