"""Trains a network: `python train.py --config=configs/cifar_resnet.py --workdir=runs/resnet20`.

Without arguments: LeNet-5 on handwritten digits, into runs/lenet_digits. A field of the
configuration is set by `--config.train.seed=1`; `--config=configs/lenet_digits.py:smoke` is a run
of seconds. `--help` lists the flags; `jaxcnn train` does the same from an installed package.

Exit codes: 0 done, 1 the loss was not finite, 2 a mistake in the arguments, a configuration or
data, 3 a file could not be read or written after the run had started, 4 an error in JAX or too
little memory, 5 another process has ended, 70 an unexpected error, 143, 130 or 129 stopped by
SIGTERM, Ctrl-C or SIGHUP with a checkpoint; continue with --resume. Compiled programs are cached
between runs in the user's cache folder; JAXCNN_CACHE=0 turns that off.
"""

from absl import app

from jaxcnn.cli import flags

if __name__ == "__main__":
    app.run(flags.main, flags_parser=flags.parse)
