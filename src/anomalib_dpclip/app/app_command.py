"""The command `dpclip app`: a page to try the model on photos."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED
from anomalib_dpclip.adapter_files.read_and_write import arguments_from_file, read_adapters
from anomalib_dpclip.app.own_options import own_options
from anomalib_dpclip.clip.pretraining import MINI
from anomalib_dpclip.data_sets.class_names import UNKNOWN_CLASS, describe
from anomalib_dpclip.data_sets.domain import Domain

if TYPE_CHECKING:  # imported by what needs it, after everything that can be wrong with the arguments
    from anomalib_dpclip.model.lightning_model import DPCLIP

_KEPT_VISITORS = 100
_DESCRIBED_SETS = ("MVTecAD", "VisA", "MPDD", "BTech", "BMAD")


def app(
    weights: str | None = None,
    backbone: str | None = None,
    pretrained: str | None = None,
    quick_gelu: bool | None = None,
    class_names: list[str] | None = None,
    domain: Domain | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    max_megabytes: int = 20,
    min_area: int | None = None,
    ignore: str | None = None,
) -> None:
    """Try the model in a browser: drop photos, type what they show, see heat maps, scores and decisions.

    Photos of good ones may be added, and then tell what it should look like.

    Runs until it is interrupted. Photos stay on this machine and are deleted after an hour or two; nothing is fetched from
    the internet but CLIP's weights, where these are not here yet.

    Args:
        weights: Trained adapters: ``.safetensors`` of this package, a Lightning ``.ckpt``, or a published ``.pth``; ``clip``
            for the backbone without adapters.
        backbone: CLIP backbone; ``mini`` is the small one that comes with the package. Default: that of the adapters, as their
            file says, or ViT-L-14-336 where it does not.
        pretrained: CLIP weights: an open_clip tag or a local file. Default: those of the adapters, or ``openai``.
        quick_gelu: Whether the towers use QuickGELU. Default: as the adapters were trained.
        class_names: Names that the page suggests; others can be typed. Default: what the photos in a checkpoint show, what
            the adapters learned, and the classes of the known data sets.
        domain: ``industrial`` or ``medical``, instead of what the file says.
        host: Address to listen on. ``0.0.0.0`` opens the page, which asks for no password, to the whole network.
        port: Port to listen on.
        max_megabytes: Largest photo that is accepted.
        min_area: Pixels of the photo that an anomalous region has at least to be shown.
        ignore: Picture of the photos' size, white where nothing is to be judged.
    """
    if weights is None:
        raise ValueError(
            f"say which adapters to try: --weights FILE. `anomalib train --model DPCLIP --data Surfaces` with --model.backbone "
            f"mini makes some in minutes; --weights {UNADAPTED} is the backbone without any"
        )
    if not 1 <= port <= 65535:
        raise ValueError(f"port must lie in 1..65535, not {port}")
    if max_megabytes < 1:
        raise ValueError(f"max_megabytes must be at least 1, not {max_megabytes}")
    if find_spec("gradio") is None:
        raise ModuleNotFoundError("the page needs gradio: pip install 'anomalib-dpclip[app]'")
    if weights != UNADAPTED:
        arguments_from_file(weights)  # what is wrong with the file is said before imports that take seconds

    from anomalib_dpclip.app.page import page
    from anomalib_dpclip.app.predictor import Predictor

    given: dict[str, Any] = {"backbone": backbone, "pretrained": pretrained, "domain": domain}
    given |= {"clip": {"quick_gelu": quick_gelu}, "region": {"ignore": ignore, "min_area": min_area}}
    model = page_model(weights, **given)
    names = class_names or suggested_names(model.provenance.learned_from, model.provenance.backbone)
    # Others can join the good photos of a target that a checkpoint remembers.
    checkpoint = Path(weights) if weights != UNADAPTED and read_adapters(weights).memory else None
    if class_names is None:
        names = list(dict.fromkeys(filter(None, [model.target.anchor_class or model.target.class_name, *names])))
    title = f"Model: {Path(weights).name} on {model.provenance.backbone}"
    if model.region.scored is not None:
        title += "; a part of the photos is not judged, as --ignore says"
    blocks = page(Predictor(model), names, title, checkpoint)
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            max_file_size=max_megabytes * 2**20,
            state_session_capacity=_KEPT_VISITORS,
            share=False,
            ssr_mode=False,
            footer_links=[],
            quiet=True,  # else it invites to publish the page
            prevent_thread_lock=True,
        )
    except OSError as error:
        reason = "the port is taken, or the host no address of this machine; choose another with --port or --host"
        raise OSError(f"cannot listen on {host}:{port}: {reason}") from error
    print(f"The page is at {blocks.local_url} until you press Ctrl+C", flush=True)  # noqa: T201
    blocks.block_thread()


def page_model(weights: str, **given: Any) -> "DPCLIP":
    """The page's model, of arguments that are not ``None``; errors name the page's options."""
    from anomalib_dpclip.model.from_file import model_from_file

    with own_options():
        chosen = {name: value for name, value in given.items() if value is not None}
        return model_from_file(weights, visualizer=False, evaluator=False, **chosen)


def suggested_names(learned_from: list[str], backbone: str) -> list[str]:
    """``object``, the classes that adapters learned from (``"Surfaces/brick"``), and those that the backbone can know."""
    from anomalib_dpclip.data.labelled_sets import categories_of, data_module_class

    learned = [source.partition("/")[2] for source in learned_from]
    sets = ["Surfaces"] if backbone == MINI else _DESCRIBED_SETS
    described = [describe(name, category) for name in sets for category in categories_of(data_module_class(name))]
    return list(dict.fromkeys([UNKNOWN_CLASS, *filter(None, learned), *described]))
