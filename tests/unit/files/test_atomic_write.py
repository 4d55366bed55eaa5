import pytest

from anomalib_dpclip.files.atomic_write import atomic_write


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "a.txt"

    def write(text, error=None):
        with atomic_write(path) as unfinished:
            unfinished.write_text(text)
            if error:
                raise error

    write("whole")
    with pytest.raises(OSError, match="no space left"):
        write("half", OSError("no space left on device"))
    assert [each.read_text() for each in path.parent.iterdir()] == ["whole"]
