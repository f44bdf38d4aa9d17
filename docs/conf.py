"""Sphinx configuration. Run `make docs`, then open docs/_build/index.html."""

import re
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
# Notebooks are executed when their code has changed; the outputs are kept below .cache.
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parents[1] / ".cache" / "notebooks")
nb_execution_in_temp = True
nb_execution_timeout = 1800  # seconds for a cell
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"
html_theme = "furo"
html_title = f"jaxcnn {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["networks.js"]
exclude_patterns = ["_build", "jupyter_execute"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
myst_ref_domains = ["std"]  # "networks" is a page, not the module jaxcnn.analysis.networks

pages.write_all(Path(__file__).parent)


def mend_source_page(app: Sphinx, page: str, _: str, context: dict, __: object) -> None:
    """Mends the links from a page of source to the reference.

    `sphinx.ext.viewcode` supposes that all that a module defines is documented under one name.
    """
    if not page.startswith("_modules/"):
        return
    objects = app.env.domaindata["py"]["objects"]

    def mend(found: re.Match) -> str:
        names = sorted((n for n, entry in objects.items() if entry.docname == found[2]), key=len)
        parts = found[3].split(".")
        ends = ("." + ".".join(parts[i:]) for i in range(len(parts)))
        right = (name for end in ends for name in names if name.endswith(end))
        return f"{found[1]}{found[2]}.html#{next(right, found[3])}"

    context["body"] = re.sub(
        r"((?:\.\./)+)((?:reference|families)/[\w.]+)\.html#([\w.]+)", mend, context["body"]
    )


def setup(app: Sphinx) -> None:
    def edit(_: Sphinx, name: str, source: list[str]) -> None:
        source[0] = pages.edit(name, source[0])

    app.connect("source-read", edit)
    app.connect("html-page-context", mend_source_page)
    app.connect("env-get-outdated", lambda *_: ["networks"])  # its table is not in the source
