import pytest
from tests.paths import ROOT

build = pytest.importorskip("mkdocs.commands.build", reason="the extra docs is not installed")


@pytest.fixture
def site(tmp_path):
    from mkdocs.config import load_config

    def make(page: str):
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / "index.md").write_text(page)
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / "rows.csv").write_text("a,b\n")
        config = tmp_path / "mkdocs.yml"
        config.write_text(f"site_name: s\ntheme: mkdocs\nuse_directory_urls: false\nhooks: [{ROOT}/scripts/docs_hooks.py]\n")
        build.build(load_config(str(config), strict=True))
        return tmp_path / "site"

    return make


def test_linked_files_are_carried_along_and_missing_ones_named(site, caplog):
    from mkdocs.exceptions import Abort

    built = site("# Page\n\n[Rows](../results/rows.csv), [again](../results/rows.csv) and [out](https://example.org/../x)\n")
    assert (built / "results" / "rows.csv").read_text() == "a,b\n"
    assert (built / "index.html").read_text().count('href="results/rows.csv"') == 2
    with pytest.raises(Abort):
        site("[Rows](../results/none.csv)\n")
    assert "index.md links to ../results/none.csv, which is not there" in caplog.text
