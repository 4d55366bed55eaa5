"""Every page's commands in one folder, as a new user types them, and once more: nothing that a training has made changes.

`run_shell` compares the digests of what trainings have left before and after each command that trains nothing.
"""

import pytest
from tests.pages import blocks, readme_commands, run_shell, short_checkout, trained_files

OWN_DATA = ("Sort the photos into folders", "List and check them", "Train and test", "Test again", "Predict")


def test_all_pages_twice(tmp_path, drawn_surfaces):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    folder = short_checkout(tmp_path, drawn_surfaces, tested=32)
    pages = [
        readme_commands(),
        *(blocks("own-data", "bash", section) for section in (*OWN_DATA, "Without any labelled set")),
        *(blocks(name, "bash") for name in ("adapter-files", "decisions", "deployment")),
    ]
    pages = [commands.replace("--trainer.max_epochs 5", "--trainer.max_epochs 1") for commands in pages]
    for commands in pages:
        run_shell(commands, folder)
    first = trained_files(folder)
    for commands in pages:
        run_shell(commands, folder)
    second = trained_files(folder)
    assert first.items() <= second.items(), "a training has a folder of its own"
    assert len(second) > len(first)
