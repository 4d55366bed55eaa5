import pytest
from tests.pictures import mask, picture


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "root" / f"{name}.png")
    mask(tmp_path / "root" / "m.png")
    return tmp_path / "root"
