"""The command `jaxcnn`: one file per subcommand.

`register(subparsers)` adds the subcommand's parser; `run(args)` does the work and returns an exit
code or None. A file imports JAX and the rest of the package inside `run`, so that help stays quick.
"""

from jaxcnn.cli.main import main

__all__ = ["main"]
