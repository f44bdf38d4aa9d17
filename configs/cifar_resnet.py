"""Residual networks on CIFAR-10, the recipe of He et al. 2016 (arXiv 1512.03385, section 4.2).

    python train.py --config=configs/cifar_resnet.py                    # ResNet-20, data from TFDS
    python train.py --config=configs/cifar_resnet.py:56                 # or 32, 44, 110, 1202
    python train.py --config=configs/cifar_resnet.py:110,split          # 45,000 / 5,000 images
    python train.py --config=configs/cifar_resnet.py \\
        --config.data.source=files:cifar10 --config.data.dir=DIR        # the original files
    python train.py --config=configs/cifar_resnet.py:smoke              # five steps

SGD with momentum 0.9, 64,000 steps of batch size 128, learning rate 0.1 divided by ten after 32,000
and 48,000 steps, weight decay 1e-4; images are padded by 4 pixels, cropped and flipped. ResNet-110
starts with a rate of 0.01. The paper raises it to 0.1 when the training error falls below 80 %,
"about 400 iterations"; here this happens after 400 steps.

The paper determined the length on a 45,000 / 5,000 split of the training images, which `split`
selects. It does not say which images the final runs were trained on. By default, all 50,000 are
used, as in most later work.

Where the paper leaves details open: weight decay applies to all parameters, as in the authors'
Torch code, and images are normalized per channel, whereas the paper subtracts the mean image.

Expected test error in percent, from Table 6: 8.75 (20), 7.51 (32), 7.17 (44), 6.97 (56), 6.43 (110;
6.61 +- 0.16 over five runs), 7.93 (1202).

Measured with jax 0.10.1 on two CPU cores, seed 0: at the end of the 64,000 steps, ResNet-20 has
8.31 % test error (831 of 10,000 wrong) and 0.69 % training error. From step 48,000 on, 42
evaluations range from 8.17 to 8.65 %, with a mean of 8.30 %. Training took 9.6 hours, on machines
of different speeds, in a run that was stopped and resumed many times. 86 of the training images and
25 of the test images were decoded from JPEG copies. The weights come with the package,
`resnet20_cifar.cifar10`, and `benchmarks/results/resnet20_cifar.csv` has the curves:

    jaxcnn train cifar_resnet data.source=files:cifar10 data.dir=DIR --workdir runs/resnet20

Measured on two busy CPU cores with jax 0.10.1, in a run shortened to four epochs: ResNet-20 has
25.80 % test error (2,580 of 10,000 wrong) and 25.71 % training error in its last epoch, after 34
minutes:

    python train.py --config=configs/cifar_resnet.py --config.data.source=files:cifar10 \\
        --config.data.dir=DIR --config.train.length_epochs=4 \\
        "--config.schedule.boundaries_steps=(782,1173)"

Three ResNet-20 networks trained together for five epochs of 10,000 images have 45.68, 46.19 and
45.02 % test error; the mean of their probabilities has 43.15 % and that of their logits 43.02 %,
after 11 minutes on two CPU cores:

    jaxcnn train configs/cifar_resnet.py data.source=files:cifar10 data.dir=DIR \\
        "data.train_split=train[:10000]" train.batch_size=64 train.length_epochs=5 \\
        "schedule.boundaries_steps=(470,700)" eval.every_epochs=5 train.members=3 --workdir RUNS
    jaxcnn evaluate RUNS --ensemble
"""

from jaxcnn.configs._common import choose

from jaxcnn.training import default_config, set_duration, smoke

DEPTHS = (20, 32, 44, 56, 110, 1202)


def get_config(arg=None):
    """The configuration; `arg` lists a depth, "split" and "smoke", such as "56,split"."""
    return recipe("resnet", DEPTHS, arg)


def recipe(family, depths, arg):
    """The recipe for the network `{family}{depth}_cifar`."""
    depth, words = choose(arg, tuple(map(str, depths)), ("split",))
    config = default_config()
    config.model.name = f"{family}{depth}_cifar"
    config.data.source = "tfds:cifar10"
    if "split" in words:
        config.data.train_split, config.data.test_split = "train[:45000]", "train[45000:]"
    config.data.augment = (("pad_crop", 4), ("flip", 0.5))
    config.train.batch_size = 128
    set_duration(config.train, "length", steps=64_000)
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay": "all",
    }
    config.schedule = {
        "name": "step",
        "learning_rate": 0.1,
        "factor": 0.1,
        "boundaries_steps": (32_000, 48_000),
    }
    if depth == "110":
        config.schedule.update({"warmup": "constant", "warmup_from": 0.01, "warmup_steps": 400})
    config.eval.batch_size = 1000
    set_duration(config.checkpoint, "every", epochs=5.0)
    config.log.every_steps = 100
    if "smoke" in words:
        smoke(config)
    return config.lock()
