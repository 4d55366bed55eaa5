"""Hooks of mkdocs: pages of `docs/` may link to files of the checkout, which the site then carries.

`../benchmark_results/surfaces.csv` leads to the file on a page read in the checkout, but out of the site: there it is copied
beside the pages.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)")
"""A link from a page to a file beside the folder `docs`."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that pages link to.

    Raises:
        PluginError: If one is not there.
    """
    root = Path(config.config_file_path).parent
    for page in files.documentation_pages():
        for name in OUTSIDE.findall(page.content_string):
            if not (root / name).is_file():
                raise PluginError(f"{page.src_uri} links to ../{name}, which is not there")
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(root / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to files of the checkout to their copies."""
    del page, config, files
    return OUTSIDE.sub(r"](\1", markdown)
