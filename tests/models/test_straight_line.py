"""Networks without a peer to compare with, once more in NumPy: line by line from their tables.

The functions below share nothing with `jaxcnn.models`: geometry, order and connections are written
out from the papers, and parameters are read by path. Logits agree to 1e-9 in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_images, draw_variables
from reference import (
    avg_pool,
    batch_norm,
    conv,
    local_response_norm,
    max_pool,
    relu,
    squeeze_excite,
    subsample,
)

import jaxcnn


@pytest.fixture(autouse=True)
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


class Leaves:
    """Variables by path: `p("conv1/kernel")`; remembers what was read."""

    def __init__(self, variables):
        flat = jax.tree_util.tree_flatten_with_path(variables)[0]
        self.values = {
            "/".join(key.key for key in path[1:]): np.asarray(leaf, np.float64)
            for path, leaf in flat
        }
        self.read = set()

    def __call__(self, path):
        self.read.add(path)
        return self.values[path]

    def unread(self):
        return set(self.values) - self.read

    # Layers with the parameters below a path.
    def conv(self, path, x, stride=1, padding=0, groups=1, bias=True):
        bias = self(f"{path}/bias") if bias else None
        return conv(x, self(f"{path}/kernel"), stride, padding, groups, bias)

    def dense(self, path, x):
        return x @ self(f"{path}/kernel") + self(f"{path}/bias")

    def norm(self, path, x, epsilon):
        leaves = [self(f"{path}/{name}") for name in ("scale", "bias", "mean", "var")]
        return batch_norm(x, *leaves, epsilon)

    def unit(self, path, x, stride=1, padding=0, epsilon=1e-3):
        """Convolution, BatchNorm with Inception's epsilon, ReLU."""
        x = self.conv(f"{path}/conv", x, stride, padding, bias=False)
        return relu(self.norm(f"{path}/bn", x, epsilon))


def compare(name, straight_line, size, channels=3, scale=1.0, endpoints=False, **options):
    """Logits of a network and of its straight-line form, for one image and drawn parameters."""
    model = jaxcnn.create_model(name, dtype=jnp.float64, **options)
    shape = (1, size, size, channels)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), draw_variables(model, shape))
    images = np.asarray(scale * draw_images(shape), np.float64)
    leaves = Leaves(variables)
    expected = straight_line(leaves, images)
    if endpoints:
        actual = jax.jit(functools.partial(jaxcnn.endpoints, model))(variables, images)
        for key in [key for key in expected if key != "logits"]:
            agree(actual[key], expected[key])
        assert not leaves.unread()
        expected = expected["logits"]
    actual = jax.jit(model.apply)(variables, images)
    assert actual.dtype == jnp.float64
    agree(actual, expected)
    assert not {path for path in leaves.unread() if not path.startswith("aux")}


def agree(actual, expected):
    assert actual.shape == expected.shape
    assert np.std(expected) > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


# --- LeNet-5, LeCun et al. 1998, section II-B and table I ---------------------------------------

S2_MAPS_OF_C3 = [
    [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [0, 4, 5], [0, 1, 5],
    [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [0, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 5],
    [0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5],
    [0, 1, 2, 3, 4, 5],
]  # fmt: skip


def lenet5_features(p, x):
    def f(a):
        return 1.7159 * np.tanh(2 * a / 3)

    # 60 kernels: those that read map 0 of S2 first, each map's in the order of C3's maps.
    kernels = dict(zip(sorted((s2, c3) for c3 in range(16) for s2 in S2_MAPS_OF_C3[c3]), range(60)))
    c1 = f(p.conv("c1", x))
    s2 = f(subsample(c1, p("s2/scale"), p("s2/bias")))
    c3 = np.stack(
        [
            sum(
                conv(s2[..., [m]], p("c3/kernel")[:, :, None, [kernels[m, i]]])[..., 0]
                for m in S2_MAPS_OF_C3[i]
            )
            + p("c3/bias")[i]
            for i in range(16)
        ],
        -1,
    )
    s4 = f(subsample(f(c3), p("s4/scale"), p("s4/bias")))
    c5 = f(p.conv("c5", s4))
    return f(p.dense("f6", c5[:, 0, 0]))


def test_lenet5_of_1998():
    compare("lenet5_1998", lenet5_features, 32, channels=1, num_classes=0)

    def padded(p, x):
        return lenet5_features(p, np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))))

    compare("lenet5_1998", padded, 28, channels=1, num_classes=0)


def test_lenet5_radial_units():
    """y_i = sum_j (x_j - w_ij)^2 with w = +-1; the smallest wins, so logits are -y."""
    from jaxcnn.models.lenet import digit_bitmaps

    centers = np.asarray(digit_bitmaps(), np.float64)
    assert centers.shape == (10, 84) and set(np.unique(centers)) == {-1, 1}
    assert len({tuple(row) for row in centers}) == 10

    def radial(p, x):
        features = lenet5_features(p, x)
        return np.stack([-np.sum((features - w) ** 2, -1) for w in centers], -1)

    compare("lenet5_1998", radial, 32, channels=1)


# --- AlexNet, Krizhevsky et al. 2012, section 3.5 and figure 2 ----------------------------------


PAPER_LRN = {"n": 5, "k": 2, "alpha": 1e-4, "beta": 0.75}
CAFFE_LRN = {"n": 5, "k": 1, "alpha": 1e-4 / 5, "beta": 0.75}
CUDA_CONVNET_LRN = {"n": 5, "k": 2, "alpha": 1e-4 / 5, "beta": 0.75}


def alexnet(p, x, *, first=0, constants=PAPER_LRN, caffenet=False, per_tower=False):
    lrn = functools.partial(local_response_norm, **constants)

    def block(x):
        pool = functools.partial(max_pool, window=3, stride=2)
        if caffenet:
            return lrn(pool(x))
        if per_tower:
            return pool(np.concatenate([lrn(half) for half in np.split(x, 2, -1)], -1))
        return pool(lrn(x))

    x = block(relu(p.conv("conv1/conv", x, 4, first)))
    assert x.shape[1:3] == (27, 27)
    x = block(relu(p.conv("conv2/conv", x, 1, 2, groups=2)))
    assert x.shape[1:3] == (13, 13)
    x = relu(p.conv("conv3/conv", x, 1, 1))
    x = relu(p.conv("conv4/conv", x, 1, 1, groups=2))
    x = max_pool(relu(p.conv("conv5/conv", x, 1, 1, groups=2)), 3, 2)
    x = x.reshape(1, -1)
    x = relu(p.dense("fc7", relu(p.dense("fc6", x))))
    return p.dense("fc8", x)


NARROW = {"widths": (8, 12, 16, 12, 8), "fc_width": 20, "num_classes": 7}


@pytest.mark.parametrize(
    "name, size, options, form",
    [
        ("alexnet_2gpu", 227, {}, {}),
        ("alexnet_2gpu", 224, {"lrn": "cuda_convnet"}, {"constants": CUDA_CONVNET_LRN}),
        ("alexnet_2gpu", 227, {"lrn_per_tower": True}, {"per_tower": True}),
        ("alexnet_caffenet", 227, {"lrn": "paper"}, {"caffenet": True}),
        ("alexnet_caffenet", 227, {}, {"caffenet": True, "constants": CAFFE_LRN}),
    ],
)
def test_alexnet(name, size, options, form):
    if size == 224:  # cuda-convnet rounds up: the last windows hang over the border by 3
        form = {**form, "first": ((0, 3), (0, 3))}
    straight_line = functools.partial(alexnet, **form)
    compare(name, straight_line, size, scale=50.0, **NARROW, **options)


# --- ZFNet, Zeiler and Fergus 2013, figure 3 ----------------------------------------------------


def zfnet(p, x):
    x = relu(p.conv("conv1/conv", x, 2, 1))
    assert x.shape[1] == 110
    x = local_response_norm(max_pool(x, 3, 2, 1))
    assert x.shape[1] == 55
    x = relu(p.conv("conv2/conv", x, 2, 0))
    assert x.shape[1] == 26
    x = local_response_norm(max_pool(x, 3, 2, 1))
    assert x.shape[1] == 13
    for name in ("conv3", "conv4", "conv5"):
        x = relu(p.conv(f"{name}/conv", x, 1, 1))
    x = max_pool(x, 3, 2)
    assert x.shape[1] == 6
    x = relu(p.dense("fc7", relu(p.dense("fc6", x.reshape(1, -1)))))
    return p.dense("fc8", x)


def test_zfnet():
    compare("zfnet_384", zfnet, 224, scale=50.0, **NARROW)


# --- VGG, Simonyan and Zisserman 2015, table 1 --------------------------------------------------

VGG_A = ["3"], ["3"], ["3", "3"], ["3", "3"], ["3", "3"]
VGG_C = ["3", "3"], ["3", "3"], ["3", "3", "1"], ["3", "3", "1"], ["3", "3", "1"]


def vgg(p, x, table, lrn):
    for block, kernels in enumerate(table, 1):
        for i, kernel in enumerate(kernels, 1):
            assert p(f"block{block}/conv{i}/kernel").shape[:2] == (int(kernel),) * 2
            x = relu(p.conv(f"block{block}/conv{i}", x, 1, 1 if kernel == "3" else 0))
            if lrn and block == i == 1:
                x = local_response_norm(x)
        x = max_pool(x, 2, 2)
    x = relu(p.dense("fc7", relu(p.dense("fc6", x.reshape(1, -1)))))
    return p.dense("fc8", x)


@pytest.mark.parametrize("name, table", [("vgg_a_lrn", VGG_A), ("vgg_c", VGG_C)])
def test_vgg(name, table):
    narrow = {"widths": (8, 8, 12, 12, 16), "fc_width": 20, "num_classes": 7, "min_size": 64}
    straight_line = functools.partial(vgg, table=table, lrn=name == "vgg_a_lrn")
    compare(name, straight_line, 64, scale=50.0, **narrow)


# --- GoogLeNet, Szegedy et al. 2015, table 1 and section 5 --------------------------------------


def googlenet(p, x):
    def unit(path, x, stride=1, padding=0):
        return relu(p.conv(f"{path}/conv", x, stride, padding))

    def module(name, x):
        def branch(i, j, x, padding=0):
            return unit(f"inception{name}/branch{i}_conv{j}", x, 1, padding)

        one = branch(1, 1, x)
        three = branch(2, 2, branch(2, 1, x), 1)
        five = branch(3, 2, branch(3, 1, x), 2)
        pool = branch(4, 1, max_pool(x, 3, 1, 1))
        return np.concatenate([one, three, five, pool], -1)

    def auxiliary(name, x):
        # 14x14 -> 4x4 as in the paper; this test's 4x4 is taken as it is.
        x = avg_pool(x, 5, 3) if x.shape[1] == 14 else x
        assert x.shape[1] == 4
        x = unit(f"{name}/conv", x).reshape(1, -1)
        return p.dense(f"{name}/fc2", relu(p.dense(f"{name}/fc1", x)))

    out = {}
    x = max_pool(unit("conv1", x, 2, 3), 3, 2, ceil_mode=True)
    x = unit("conv3", unit("conv2", local_response_norm(x)), 1, 1)
    x = max_pool(local_response_norm(x), 3, 2, ceil_mode=True)
    x = module("3b", module("3a", x))
    x = module("4a", max_pool(x, 3, 2, ceil_mode=True))
    out["aux1"] = auxiliary("aux1_head", x)
    x = module("4d", module("4c", module("4b", x)))
    out["aux2"] = auxiliary("aux2_head", x)
    x = max_pool(module("4e", x), 3, 2, ceil_mode=True)
    x = module("5b", module("5a", x))
    out["pre_logits"] = x.mean((1, 2))
    return {**out, "logits": p.dense("fc", out["pre_logits"])}


def test_googlenet():
    compare("googlenet", googlenet, 64, scale=50.0, endpoints=True, num_classes=7)


@pytest.mark.slow
def test_googlenet_at_its_own_size():
    compare("googlenet", googlenet, 224, scale=50.0, endpoints=True)


# --- BN-Inception, Ioffe and Szegedy 2015, figure 5; Hu et al. 2018 for its SE form -------------


def bn_inception(p, x, *, separable, gates=False):
    """Caffe's networks: epsilon 1e-5, and where there are gates average pools count the padding."""
    unit_of = functools.partial(p.unit, epsilon=1e-5)
    average = functools.partial(avg_pool, count_include_pad=gates)

    def gate(name, x):
        if not gates:
            return x
        path = f"inception{name}_se"
        leaves = [p(f"{path}/{fc}/{leaf}") for fc in ("fc1", "fc2") for leaf in ("kernel", "bias")]
        return squeeze_excite(x, *leaves)

    def branches(name, x, first, stride):
        """The 3x3 and the double 3x3, which begin at branch `first`."""

        def unit(i, j, x, stride=1, padding=0):
            return unit_of(f"inception{name}/branch{i}_conv{j}", x, stride, padding)

        three = unit(first, 2, unit(first, 1, x), stride, 1)
        double = unit(first + 1, 2, unit(first + 1, 1, x), 1, 1)
        return three, unit(first + 1, 3, double, stride, 1)

    def module(name, x, pool):
        one = unit_of(f"inception{name}/branch1_conv1", x)
        pooled = pool(x, 3, 1, 1)
        pooled = unit_of(f"inception{name}/branch4_conv1", pooled)
        return gate(name, np.concatenate([one, *branches(name, x, 2, 1), pooled], -1))

    def reduction(name, x):
        pooled = max_pool(x, 3, 2, ceil_mode=True)
        return gate(name, np.concatenate([*branches(name, x, 1, 2), pooled], -1))

    if separable:
        x = p.conv("conv1/depthwise", x, 2, 3, groups=3, bias=False)
        assert x.shape[-1] == 24
        x = unit_of("conv1/pointwise", x)
    else:
        x = unit_of("conv1", x, 2, 3)
    x = max_pool(x, 3, 2, ceil_mode=True)
    x = unit_of("conv3", unit_of("conv2", x), 1, 1)
    x = max_pool(x, 3, 2, ceil_mode=True)
    x = reduction("3c", module("3b", module("3a", x, average), average))
    for name in ("4a", "4b", "4c", "4d"):
        x = module(name, x, average)
    x = module("5a", reduction("4e", x), average)
    x = module("5b", x, max_pool)
    return p.dense("fc", x.mean((1, 2)))


@pytest.mark.parametrize(
    "name, options",
    [
        ("bn_inception", {"separable": True}),
        ("se_bn_inception", {"separable": False, "gates": True}),
    ],
)
def test_bn_inception(name, options):
    compare(name, functools.partial(bn_inception, **options), 64, num_classes=7)


# --- Inception-ResNet-v1, Szegedy et al. 2016, figures 10 to 15 ---------------------------------


def inception_resnet_v1(p, x, *, blocks):
    def chain(path, branch, x, *steps):
        for i, (stride, padding) in enumerate(steps, 1):
            x = p.unit(f"{path}/branch{branch}_conv{i}", x, stride, padding)
        return x

    def residual(path, x, scale, *branches):
        parts = [chain(path, i, x, *steps) for i, steps in enumerate(branches, 1)]
        return relu(x + scale * p.conv(f"{path}/expand", np.concatenate(parts, -1)))

    same, one_by_seven, seven_by_one = (1, 1), (1, (0, 3)), (1, (3, 0))
    one_by_three, three_by_one = (1, (0, 1)), (1, (1, 0))
    point, valid2 = (1, 0), (2, 0)

    x = p.unit("entry/conv1", x, 2, 0)
    x = p.unit("entry/conv2", x, 1, 0)
    x = p.unit("entry/conv3", x, 1, 1)
    x = max_pool(x, 3, 2)
    x = p.unit("entry/conv4", x)
    x = p.unit("entry/conv5", x, 1, 0)
    x = p.unit("entry/conv6", x, 2, 0)
    assert x.shape[-1] == 256
    for i in range(blocks[0]):
        branches = [point], [point, same], [point, same, same]
        x = residual(f"stage1_block{i + 1}", x, 0.17, *branches)
    parts = [
        chain("reduction_a", 1, x, valid2),
        chain("reduction_a", 2, x, point, same, valid2),
        max_pool(x, 3, 2),
    ]
    x = np.concatenate(parts, -1)
    assert x.shape[-1] == 896
    for i in range(blocks[1]):
        branches = [point], [point, one_by_seven, seven_by_one]
        x = residual(f"stage2_block{i + 1}", x, 0.10, *branches)
    parts = [
        chain("reduction_b", 1, x, point, valid2),
        chain("reduction_b", 2, x, point, valid2),
        chain("reduction_b", 3, x, point, same, valid2),
        max_pool(x, 3, 2),
    ]
    x = np.concatenate(parts, -1)
    assert x.shape[-1] == 1792
    for i in range(blocks[2]):
        branches = [point], [point, one_by_three, three_by_one]
        x = residual(f"stage3_block{i + 1}", x, 0.20, *branches)
    return p.dense("fc", x.mean((1, 2)))


def test_inception_resnet_v1():
    blocks = (2, 1, 2)
    straight_line = functools.partial(inception_resnet_v1, blocks=blocks)
    compare("inception_resnet_v1", straight_line, 75, blocks=blocks, num_classes=7)


# --- CIFAR nets, He et al. 2016, section 4.2 ----------------------------------------------------


def cifar_net(p, x, *, n, shortcuts):
    def unit(path, number, x, stride=1):
        x = p.conv(f"{path}conv{number}", x, stride, 1, bias=False)
        return p.norm(f"{path}bn{number}", x, 1e-5)

    x = relu(unit("stem_", "", x))
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(1, n + 1):
            path = f"stage{stage}_block{block}/"
            stride = 2 if stage > 1 and block == 1 else 1
            y = unit(path, 2, relu(unit(path, 1, x, stride)))
            if shortcuts:  # option A: every second pixel, zeros appended
                identity = np.zeros_like(y)
                identity[..., : x.shape[-1]] = x[:, ::stride, ::stride]
                y = y + identity
            x = relu(y)
        assert x.shape == (1, 64 >> stage, 64 >> stage, width)
    return p.dense("fc", x.mean((1, 2)))


@pytest.mark.parametrize("name, shortcuts", [("resnet20_cifar", True), ("plain20_cifar", False)])
def test_cifar_nets(name, shortcuts):
    compare(name, functools.partial(cifar_net, n=3, shortcuts=shortcuts), 32)
