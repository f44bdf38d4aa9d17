"""`train.py` with the first version's gradient of max pooling, which is wrong behind BatchNorm.

It runs in the root of a checkout and takes the same arguments.
"""

import os
import sys
from types import SimpleNamespace

from absl import app

from jaxcnn.cli import flags

sys.path.insert(0, os.path.join(os.getcwd(), "tests", "ops"))
import old_pooling

if __name__ == "__main__":
    old_pooling.plant(SimpleNamespace(setattr=setattr))
    app.run(flags.main, flags_parser=flags.parse)
