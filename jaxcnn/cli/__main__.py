"""`python -m jaxcnn.cli`."""

import sys

from jaxcnn.cli.main import main

sys.exit(main())
