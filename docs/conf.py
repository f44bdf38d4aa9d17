"""The site: `make docs`, then open docs/_build/index.html."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pages

import jaxcnn

project = "jaxcnn"
version = release = jaxcnn.__version__
extensions = ["myst_nb"]
nb_execution_mode = "off"  # `make notebooks` runs them
html_theme = "furo"
html_title = f"jaxcnn {version}"
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

pages.write_all(Path(__file__).parent)
