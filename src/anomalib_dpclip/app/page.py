"""The command `dpclip app`: a page to try the model on photos."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_dpclip.adapter_files.arguments import arguments_from_file
from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.app.correct_command import corrected_path, write_corrected
from anomalib_dpclip.app.predictor import Prediction, Predictor
from anomalib_dpclip.clip.loading import MINI
from anomalib_dpclip.data.labelled_sets import categories_of, data_module_class
from anomalib_dpclip.data.regions import Region
from anomalib_dpclip.files.markdown_table import markdown_table
from anomalib_dpclip.method.class_names import UNKNOWN_CLASS, describe
from anomalib_dpclip.method.domain import Domain
from anomalib_dpclip.method.unadapted import UNADAPTED
from anomalib_dpclip.model.from_file import model_from_file
from anomalib_dpclip.model.lightning_model import DPCLIP

if TYPE_CHECKING:
    from gradio import Blocks

_KEPT_SECONDS = 3600
_KEPT_VISITORS = 100
_SHOWN_REGIONS = 10
_NO_PHOTO = "Drop a photo to begin."
_UNCALIBRATED = (
    "**Not calibrated:** these weights carry no thresholds. 0.5 is only the point of indifference, and the colours show "
    "each photo's own range."
)
_DESCRIBED_SETS = ("MVTecAD", "VisA", "MPDD", "BTech", "BMAD")


def app(
    weights: str | None = None,
    backbone: str | None = None,
    pretrained: str | None = None,
    quick_gelu: bool | None = None,
    class_names: list[str] | None = None,
    domain: Domain = "industrial",
    host: str = "127.0.0.1",
    port: int = 7860,
    max_megabytes: int = 20,
    min_area: int = 0,
    ignore: str | None = None,
) -> None:
    """Try the model in a browser: drop a photo, type what it shows, see heat map, score and decision.

    Runs until it is interrupted. Photos stay on this machine and are deleted after an hour or two; nothing is fetched from
    the internet but CLIP's weights, where these are not here yet.

    Args:
        weights: Trained adapters: ``.safetensors`` of this package, a Lightning ``.ckpt``, or a published ``.pth``; ``clip``
            for the backbone without adapters.
        backbone: CLIP backbone; ``mini`` is the small one that comes with the package. Default: that of the adapters, as their
            file says, or ViT-L-14-336 where it does not.
        pretrained: CLIP weights: an open_clip tag or a local file. Default: those of the adapters, or ``openai``.
        quick_gelu: Whether the towers use QuickGELU. Default: as the adapters were trained.
        class_names: Names that the page suggests; others can be typed. Default: those that the adapters learned, and those
            of the known data sets.
        domain: What the photos are of, ``industrial`` or ``medical``: blur of the maps and fusion of the scores.
        host: Address to listen on. ``0.0.0.0`` opens the page, which asks for no password, to the whole network.
        port: Port to listen on.
        max_megabytes: Largest photo that is accepted.
        min_area: Pixels of the photo that an anomalous region has at least to be shown.
        ignore: Picture of the photos' size, white where nothing is to be judged.

    Raises:
        ModuleNotFoundError: If gradio is not installed.
        ValueError: If there are no weights, or a value is out of range.
        FileNotFoundError: If the adapters or CLIP's weights are not there.
        OSError: If the port is taken or the host no address of this machine.
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
    given = {"backbone": backbone, "pretrained": pretrained, "quick_gelu": quick_gelu, "domain": domain, "min_area": min_area}
    given |= {"ignore": ignore}
    model = _model(weights, given)
    names = class_names or suggested_names(model.provenance.learned_from, model.provenance.backbone)
    title = f"{Path(weights).name} on {model.provenance.backbone}"
    blocks = page(Predictor(model), names, title, Path(weights) if remembers_photos(weights) else None)
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
        raise OSError(
            f"cannot listen on {host}:{port}: the port is taken, or the host no address of this machine; choose another "
            f"with --port or --host"
        ) from error
    print(f"The page is at {blocks.local_url} until you press Ctrl+C", flush=True)  # noqa: T201
    blocks.block_thread()


def _model(weights: str, given: dict[str, Any]) -> DPCLIP:
    """The model, with errors that name the page's options: those of the model go without their prefix here."""
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        if remembers_photos(weights):  # and so it is of one target, with thresholds of its own
            return model_from_file(weights, visualizer=False, evaluator=False, **{**chosen, "domain": None})
        # What it shows is typed on the page, and a photo is seen whole.
        told = {} if weights == UNADAPTED else arguments_from_file(weights) | {"class_name": None, "tiles": 1}
        return DPCLIP(weights=weights, **told | chosen)
    except FileNotFoundError as error:
        raise FileNotFoundError(str(error).replace("--model.", "--")) from error
    except ValueError as error:
        raise ValueError(str(error).replace("--model.", "--")) from error


def remembers_photos(weights: str) -> bool:
    """Whether a file is a checkpoint with a memory of photos of a target, to which corrections can be added."""
    return weights != UNADAPTED and bool(read_adapters(weights).memory)


def suggested_names(learned_from: list[str], backbone: str) -> list[str]:
    """Names to suggest: ``object``, the classes that adapters learned from, and those that the backbone can know.

    Args:
        learned_from: As in the adapters' provenance, ``"Surfaces/brick"``.
        backbone: Name of the CLIP backbone.
    """
    learned = [source.partition("/")[2] for source in learned_from]
    sets = ["Surfaces"] if backbone == MINI else _DESCRIBED_SETS
    described = [describe(name, category) for name in sets for category in categories_of(data_module_class(name))]
    return list(dict.fromkeys([UNKNOWN_CLASS, *filter(None, learned), *described]))


class Answers:
    """What the page answers when something on it changes.

    Args:
        predictor: The model.
        checkpoint: Where its memory of photos of a target is from; without one nothing can be corrected.
    """

    def __init__(self, predictor: Predictor, checkpoint: Path | None = None) -> None:
        self.predictor, self.checkpoint = predictor, checkpoint

    def look(self, path: str | None, class_name: str | None, threshold: float) -> tuple:
        """Another photo, or another name for it: prediction, upright photo, heat map and verdict."""
        if path is None:
            return None, None, None, _NO_PHOTO
        try:
            prediction = self.predictor.predict(path, class_name)
        except ValueError as error:  # no image, or a bad name
            # The folder is the server's, and means nothing to whoever dropped the photo.
            return None, None, None, f"### No result\n{str(error).replace(path, Path(path).name)}"
        return prediction, prediction.photo, *self.decide(prediction, threshold)

    def decide(self, prediction: Prediction | None, threshold: float) -> tuple:
        """Another threshold: heat map and verdict."""
        if prediction is None:
            import gradio as gr

            return gr.skip(), gr.skip()
        decision = "Anomalous" if prediction.is_anomalous(threshold) else "Normal"
        verdict = f"## {decision}\nScore {prediction.score:.3f}, threshold {threshold:.2f}"
        return prediction.heat_map(threshold), f"{verdict}\n\n{regions_table(prediction.regions(threshold))}"

    def correct(self, path: str | None, class_name: str | None, threshold: float) -> tuple:
        """The photo was fine: what `look` answers of the corrected model, and where that has been written."""
        if path is None or self.checkpoint is None:
            return None, None, None, _NO_PHOTO
        target = corrected_path(self.checkpoint)
        try:
            self.predictor.model.add_corrections([path])
            write_corrected(self.predictor.model, self.checkpoint, target)
        except (ValueError, OSError) as error:
            return None, None, None, f"### Not corrected\n{str(error).replace(path, Path(path).name)}"
        *shown, verdict = self.look(path, class_name, threshold)
        return *shown, f"{verdict}\n\nCorrected. Kept in {target.name}, beside the checkpoint."


def regions_table(regions: Sequence[Region]) -> str:
    """The first regions as a table: score, area and box in pixels of the photo."""
    if not regions:
        return "No region exceeds the threshold."
    rows = [
        [f"{each.score:.3f}", f"{each.area:,}", f"{each.left}, {each.top} to {each.right}, {each.bottom}"]
        for each in regions[:_SHOWN_REGIONS]
    ]
    left_out = len(regions) - len(rows)
    more = f"\n\nand {left_out} more" if left_out else ""
    return markdown_table(["score", "area", "box"], rows) + more


def page(predictor: Predictor, class_names: list[str], title: str, checkpoint: Path | None = None) -> "Blocks":
    """Lay out the page.

    Args:
        predictor: The model.
        class_names: Names to suggest, the first of them chosen.
        title: Which model it is.
        checkpoint: With a memory of photos of a target: there is a button to say that a photo is fine.

    Returns:
        The page, not yet launched. It sends nothing to anybody.
    """
    import gradio as gr

    answers = Answers(predictor, checkpoint)
    # Uploads are looked for and deleted hourly, an hour after they came.
    with gr.Blocks(title="DP-CLIP", analytics_enabled=False, delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)) as blocks:
        gr.Markdown(f"# DP-CLIP\n{title}" + ("" if predictor.is_calibrated else f"\n\n{_UNCALIBRATED}"))
        prediction = gr.State(time_to_live=_KEPT_SECONDS)
        with gr.Row():
            with gr.Column(scale=1):
                asked = _questions(class_names)
                verdict = gr.Markdown(_NO_PHOTO, elem_id="verdict")
                fine = gr.Button("This photo is fine", visible=checkpoint is not None, elem_id="fine")
            with gr.Column(scale=3), gr.Row():
                upright, heat_map = _picture("Photo", "photo"), _picture("Heat map", "heat-map")
        photo, class_name, threshold = asked
        answer = [heat_map, verdict]
        gr.on([photo.change, class_name.change], answers.look, asked, [prediction, upright, *answer])
        fine.click(answers.correct, asked, [prediction, upright, *answer])
        # No need to predict again.
        threshold.change(answers.decide, [prediction, threshold], answer, show_progress="hidden")
    return blocks


def _questions(class_names: list[str]) -> list[Any]:
    """Fields for the photo, what it shows, and the threshold."""
    import gradio as gr

    photo = gr.File(label="Photo", file_types=["image"], elem_id="upload")
    class_name = gr.Dropdown(
        class_names,
        value=class_names[0],
        allow_custom_value=True,
        label="What it shows",
        info="Choose, or type your own",
        elem_id="class-name",
    )
    hint = "Lower finds more, and raises more false alarms"
    threshold = gr.Slider(0, 1, 0.5, step=0.01, label="Threshold", info=hint, elem_id="threshold")
    return [photo, class_name, threshold]


def _picture(label: str, name: str) -> Any:
    import gradio as gr

    # Gradio's third button, "share", would upload the picture.
    return gr.Image(label=label, interactive=False, format="jpeg", buttons=["download", "fullscreen"], elem_id=name)
