"""Sphinx configuration. Run `make docs`, then open docs/_build/index.html."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pages
from sphinx.application import Sphinx

import jaxcnn

project = "jaxcnn"
author = "The jaxcnn authors"
html_show_copyright = False
version = release = jaxcnn.__version__
extensions = ["myst_nb", "sphinx.ext.viewcode"]
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
nb_execution_mode = "off"  # `make notebooks` runs the notebooks
html_theme = "furo"
html_title = f"jaxcnn {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["networks.js"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
myst_ref_domains = ["std"]  # "networks" is a page, not the module jaxcnn.analysis.networks

pages.write_all(Path(__file__).parent)


def setup(app: Sphinx) -> None:
    def edit(_: Sphinx, name: str, source: list[str]) -> None:
        source[0] = pages.edit(name, source[0])

    app.connect("source-read", edit)
    app.connect("env-get-outdated", lambda *_: ["networks"])  # its table is not in the source
