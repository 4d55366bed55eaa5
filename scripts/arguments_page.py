"""The page of arguments, `docs/arguments.md`, made of the classes' signatures and docstrings.

Run `python -m scripts.arguments_page` after changing either; a test compares the page with them.
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path

from docstring_parser import DocstringStyle, parse

from anomalib_dpclip import DPCLIP, DPCLIPPostProcessor, JSONLines, Photos, Surfaces
from anomalib_dpclip.model.arguments import GROUPS

PAGE = Path(__file__).parents[1] / "docs" / "arguments.md"

INTRODUCTION = """\
# Arguments

<!-- Made by `python -m scripts.arguments_page` from signatures and docstrings: change those. -->

A model's argument is `--model.NAME VALUE` on anomalib's command line, `init_args` in a YAML file, and `DPCLIP(NAME=VALUE)` in
Python; a data module's is `--data.NAME VALUE`. Those that few set are grouped by subject:
`--model.training.learning_rate 1e-3`, in YAML `training: {learning_rate: 1e-3}`, in Python
`DPCLIP(training={"learning_rate": 1e-3})`. The command line says the same:

```bash
anomalib train --model.help DPCLIP
```

`configs/model/dpclip.yaml` spells out those of the model for ViT-L-14-336. An empty default is derived: the description says
from what.
"""

SECTIONS = {
    "--model DPCLIP": DPCLIP,
    **{f"--model.{name}": group for name, group in GROUPS.items()},
    "--model.post_processor DPCLIPPostProcessor": DPCLIPPostProcessor,
    "--data JSONLines": JSONLines,
    "--data Photos": Photos,
    "--data Surfaces": Surfaces,
}
"""What a section is about, as it is written on the command line, and the class whose arguments it lists."""


def arguments_page() -> str:
    """The page's text.

    Raises:
        LookupError: If a docstring leaves an argument out, or describes one that is not there.
    """
    sections = (f"## `{title}`\n\n{arguments_table(described)}" for title, described in SECTIONS.items())
    return "\n".join([INTRODUCTION, *sections])


def arguments_table(described: type) -> str:
    """A table of the arguments of a class: name, default, and what its docstring says.

    Raises:
        LookupError: If the docstring and the signature do not name the same arguments in the same order.
    """
    entries = parse(described.__doc__ or "", DocstringStyle.GOOGLE).params
    kind = "attribute" if is_dataclass(described) else "param"  # a dataclass describes its arguments as attributes
    descriptions = {each.arg_name: each.description or "" for each in entries if each.args[0] == kind}
    defaults = {name: each.default for name, each in inspect.signature(described).parameters.items()}
    if list(descriptions) != list(defaults):
        differing = sorted(set(descriptions) ^ set(defaults)) or "their order"
        raise LookupError(f"the docstring of {described.__name__} and its signature differ in {differing}")
    rows = [f"| `{name}` | {_default(defaults[name])} | {_markdown(descriptions[name])} |" for name in defaults]
    return "\n".join(["| argument | default | what it is |", "| --- | --- | --- |", *rows, ""])


def _default(value: object) -> str:
    """A default as a table shows it: a sequence item by item, an enumeration's value, nothing for one that is derived."""
    if value is inspect.Parameter.empty:
        return "required"
    if value is None:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{getattr(value, 'value', value)}`"


def _markdown(description: str) -> str:
    """A description in one line: literals marked as in Markdown, nothing that ends a table's cell."""
    line = re.sub(r"\s+", " ", description.replace("``", "`")).strip()
    return line.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(arguments_page(), encoding="utf-8")
    print(f"wrote {PAGE}")  # noqa: T201
