"""Studies: grids of settings, each trained with several seeds, for one table and one figure.

`STUDIES` and `load_study` give the built-in studies; a `Study` of several `Run`s is your own.
`make_jobs` lists the runs to train, and `console.run` trains them, as `jaxcnn ablate` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcnn._lazy import lazy_exports

if TYPE_CHECKING:
    from jaxcnn.studies import console
    from jaxcnn.studies.catalog import STUDIES, load_study
    from jaxcnn.studies.plan import Job, make_jobs
    from jaxcnn.studies.study import Run, Study, make_config

__all__ = [
    "STUDIES",
    "Job",
    "Run",
    "Study",
    "console",
    "load_study",
    "make_config",
    "make_jobs",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "console": "console",
        "STUDIES": "catalog",
        "load_study": "catalog",
        "Job": "plan",
        "make_jobs": "plan",
        "Run": "study",
        "Study": "study",
        "make_config": "study",
    },
)
