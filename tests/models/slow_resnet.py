"""Residual networks once more, in NumPy from the papers' figures, on the variables of ours."""

import re

import numpy as np
import reference


def arrays(variables):
    """{"stage1_block1/bn1": {"scale": .., "mean": ..}}: parameters and statistics by module."""
    found = {}

    def walk(tree, path):
        for key, value in tree.items():
            if hasattr(value, "items"):
                walk(value, (*path, key))
            else:
                found.setdefault("/".join(path), {})[key] = np.asarray(value, np.float64)

    for collection in variables.values():
        walk(collection, ())
    return found


class Slow:
    """Applies modules by their paths."""

    def __init__(self, variables):
        self.modules = arrays(variables)

    def has(self, path):
        return path in self.modules

    def conv(self, x, path, stride=1, groups=1):
        kernel = self.modules[path]["kernel"]
        return reference.conv(x, kernel, stride, kernel.shape[0] // 2, groups)

    def norm(self, x, path):
        m = self.modules[path]
        return reference.batch_norm(x, m["scale"], m["bias"], m["mean"], m["var"], 1e-5)

    def blocks(self):
        """[(path, stage, number in its stage)]"""
        names = {path.split("/")[0] for path in self.modules}
        found = [(int(s), int(b)) for s, b in re.findall(r"stage(\d+)_block(\d+)", " ".join(names))]
        return [(f"stage{s}_block{b}", s, b) for s, b in sorted(found)]

    def classify(self, x):
        fc = self.modules["fc"]
        return x.mean((1, 2)) @ fc["kernel"] + fc["bias"]

    def skip(self, x, features, stride, path, kind):
        if self.has(f"{path}/proj_conv"):
            if kind == "D" and stride == 2:
                x, stride = reference.avg_pool(x, 2, 2, ceil_mode=True), 1
            x = self.conv(x, f"{path}/proj_conv", stride)
            return self.norm(x, f"{path}/proj_bn") if self.has(f"{path}/proj_bn") else x
        x = x[:, ::stride, ::stride]
        new = features - x.shape[-1]
        before = new // 2 if kind == "A_symmetric" else 0
        padded = np.zeros((*x.shape[:3], features))
        padded[..., before : before + x.shape[-1]] = x
        return padded


def strides_of(last, strided, stage, number):
    """{1: .., 2: .., 3: ..}: only convolution `strided` of a later stage's first block strides."""
    return {i: 2 if stage > 1 and number == 1 and i == strided else 1 for i in range(1, last + 1)}


def slow_resnet(variables, x, *, kind, strided, pool=None, groups=1):
    """Post-activation (He et al. 2015, figure 2). `strided`: number of the strided convolution."""
    net = Slow(variables)
    stem = [""] if net.has("stem_conv") else ["1", "2", "3"]
    for i, number in enumerate(stem):
        x = net.conv(x, f"stem_conv{number}", 2 if pool and i == 0 else 1)
        x = reference.relu(net.norm(x, f"stem_bn{number}"))
    if pool == "ceil":
        x = reference.max_pool(x, 3, 2, 0, ceil_mode=True)
    elif pool == "pad":
        x = reference.max_pool(x, 3, 2, 1)
    for path, stage, number in net.blocks():
        last = 3 if net.has(f"{path}/conv3") else 2
        strides = strides_of(last, strided, stage, number)
        y = x
        for i, stride in strides.items():
            y = net.conv(y, f"{path}/conv{i}", stride, groups if (last, i) == (3, 2) else 1)
            y = net.norm(y, f"{path}/bn{i}")
            y = y if i == last else reference.relu(y)
        if net.has(f"{path}/se/fc1"):
            gates = [net.modules[f"{path}/se/{fc}"] for fc in ("fc1", "fc2")]
            y = reference.squeeze_excite(y, *(g[k] for g in gates for k in ("kernel", "bias")))
        if kind != "none":
            y = y + net.skip(x, y.shape[-1], max(strides.values()), path, kind)
        x = reference.relu(y)
    return net.classify(x)


def slow_resnet_v2(variables, x, *, kind, strided, pool=None, groups=1):
    """Pre-activation (He et al. 2016, figure 1b)."""
    net = Slow(variables)
    x = net.conv(x, "stem_conv", 2 if pool else 1)
    if net.has("stem_bn"):
        x = reference.relu(net.norm(x, "stem_bn"))
    if pool:
        x = reference.max_pool(x, 3, 2, 1)
    for path, stage, number in net.blocks():
        last = 3 if net.has(f"{path}/conv3") else 2
        strides = strides_of(last, strided, stage, number)
        out = net.modules[f"{path}/conv{last}"]["kernel"].shape[-1]
        activated = x
        if net.has(f"{path}/bn1"):
            activated = reference.relu(net.norm(x, f"{path}/bn1"))
        changes = max(strides.values()) > 1 or out != x.shape[-1]
        y = activated
        for i, stride in strides.items():
            if i > 1:
                y = reference.relu(net.norm(y, f"{path}/bn{i}"))
            y = net.conv(y, f"{path}/conv{i}", stride, groups if (last, i) == (3, 2) else 1)
        x = y + net.skip(activated if changes else x, out, max(strides.values()), path, kind)
    return net.classify(reference.relu(net.norm(x, "final_bn")))
