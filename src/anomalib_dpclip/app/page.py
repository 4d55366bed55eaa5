"""The layout of the page of `dpclip app`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_dpclip.app.answers import Answer, Answers
from anomalib_dpclip.app.predictor import Predictor

if TYPE_CHECKING:
    from gradio import Blocks

_KEPT_SECONDS = 3600
_FIELD_HEIGHT = 150
_PURPOSE = (
    "Drop a photo, or several, and say what they show: heat maps tell where it looks damaged, scores how much. Photos of good "
    "ones, if you add some, tell what it should look like."
)


def page(predictor: Predictor, class_names: list[str], title: str, checkpoint: Path | None = None) -> "Blocks":
    """Lay out the page, not yet launched. It sends nothing to anybody.

    The first of the class names to suggest is chosen. With a checkpoint that remembers photos of a target there is a button
    to say that a photo is fine.
    """
    import gradio as gr

    answers = Answers(predictor, checkpoint)
    # Gradio's third button, "share", would upload the picture.
    picture: Any = {"interactive": False, "format": "jpeg", "buttons": ["download", "fullscreen"]}
    # Uploads are looked for and deleted hourly, an hour after they came.
    with gr.Blocks(title="DP-CLIP", analytics_enabled=False, delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)) as blocks:
        gr.Markdown(f"# DP-CLIP\n{_PURPOSE}  \n{title}")
        judged = gr.State(time_to_live=_KEPT_SECONDS)
        with gr.Row():
            with gr.Column(scale=1):
                several: Any = {"file_count": "multiple", "height": _FIELD_HEIGHT}
                named: Any = {"value": class_names[0], "allow_custom_value": True, "info": "Choose, or type your own"}
                hint = "Lower finds more, and raises more false alarms"
                photos = gr.File(label="Photos to judge", elem_id="upload", **several)
                class_name = gr.Dropdown(class_names, label="What they show", elem_id="class-name", **named)
                good = gr.File(label="Good photos of the same (optional)", elem_id="good", **several)
                threshold = gr.Slider(0, 1, 0.5, step=0.01, label="Threshold", info=hint, elem_id="threshold")
            with gr.Column(scale=3):
                verdict = gr.Markdown(answers.look(None, class_names[0], None, 0.5).verdict, elem_id="verdict")
                fine = gr.Button("This photo is fine: remember it", size="sm", visible=checkpoint is not None, elem_id="fine")
                with gr.Row():
                    upright = gr.Image(label="Photo", elem_id="photo", **picture)
                    heat_map = gr.Image(label="Heat map", elem_id="heat-map", **picture)
                heat_maps = gr.Gallery(
                    label="Heat maps", columns=3, height="max-content", visible=False, elem_id="heat-maps", **picture
                )
                regions = gr.Markdown(elem_id="regions")
        asked = [photos, class_name, good, threshold]
        shown = [judged, upright, heat_map, heat_maps, verdict, regions]
        gr.on([photos.change, class_name.change, good.change], _shown(answers.look), asked, shown)
        fine.click(_shown(answers.correct), asked, shown)
        threshold.change(_shown(answers.decide), [judged, *asked], shown, show_progress="hidden")
    return blocks


def _shown(answer: Callable[..., Answer]) -> Callable[..., list[Any]]:
    """What the page shows of an answer: a photo beside its heat map, or in their place the heat maps of several."""
    import gradio as gr

    def shown(*asked: Any) -> list[Any]:
        given = answer(*asked)
        several = bool(given.heat_maps)
        pictures = [gr.update(value=each, visible=not several) for each in (given.photo, given.heat_map)]
        gallery = gr.update(value=list(given.heat_maps), visible=several)
        return [given.judged, *pictures, gallery, given.verdict, given.regions]

    return shown
