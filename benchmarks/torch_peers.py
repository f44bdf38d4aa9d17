"""The networks of `against_torch.py` in PyTorch, and the process that runs them.

    PYTHON_WITH_TORCH benchmarks/torch_peers.py

reads commands from standard input and answers on standard output, a line of JSON each; it is
started by `against_torch.py`, in an environment of its own, and knows nothing of JAX. LeNet-5,
ResNet-20, AlexNet and VGG-16 are written here, the others are torchvision's and timm's.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from importlib import metadata

import torch
import torch.nn.functional as F
from torch import nn


def lenet5() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(True), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(True), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(True), nn.Linear(120, 84), nn.ReLU(True)),
        nn.Linear(84, 10),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; where it shrinks, every second pixel and zeros for new channels."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(
            *(nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)),
            *(nn.ReLU(True), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)),
        )
        self.stride, self.added = stride, width - channels

    def forward(self, x):
        y = self.branch(x)
        if self.added:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return F.relu(y + x, True)


def resnet20() -> nn.Module:
    parts = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)]
    channels = 16
    for width in (16, 32, 64):
        for i in range(3):
            parts.append(BasicBlock(channels, width, 2 if width > 16 and not i else 1))
            channels = width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _three_dense(features: int) -> list[nn.Module]:
    parts: list[nn.Module] = [nn.Flatten()]
    for width in (features, 4096):
        parts += [nn.Linear(width, 4096), nn.ReLU(True), nn.Dropout()]
    return [*parts, nn.Linear(4096, 1000)]


def alexnet() -> nn.Module:
    """Two groups, with response normalization; alpha is divided by n in PyTorch."""

    def norm_and_pool():
        return nn.LocalResponseNorm(5, alpha=5e-4, k=2.0), nn.MaxPool2d(3, 2)

    return nn.Sequential(
        *(nn.Conv2d(3, 96, 11, 4), nn.ReLU(True), *norm_and_pool()),
        *(nn.Conv2d(96, 256, 5, 1, 2, groups=2), nn.ReLU(True), *norm_and_pool()),
        *(nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(True)),
        *(nn.Conv2d(384, 384, 3, 1, 1, groups=2), nn.ReLU(True)),
        *(nn.Conv2d(384, 256, 3, 1, 1, groups=2), nn.ReLU(True), nn.MaxPool2d(3, 2)),
        *_three_dense(9216),
    )


def vgg16() -> nn.Module:
    parts: list[nn.Module] = []
    channels = 3
    for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            parts += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU(True)]
            channels = width
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts, *_three_dense(25088))


def _torchvision(name: str, **options):
    def make() -> nn.Module:
        import torchvision

        return getattr(torchvision.models, name)(**options)

    return make


def _timm(name: str):
    def make() -> nn.Module:
        import timm

        return timm.create_model(name)

    return make


_NO_AUX = {"aux_logits": False, "init_weights": False, "transform_input": False}

PEERS = {
    "lenet5": lenet5,
    "resnet20_cifar": resnet20,
    "alexnet_2gpu": alexnet,
    "vgg16": vgg16,
    "googlenet_bn": _torchvision("googlenet", **_NO_AUX),
    "inception_v3": _torchvision("inception_v3", **_NO_AUX),
    "resnet18": _torchvision("resnet18"),
    "resnet50": _torchvision("resnet50"),
    "resnet152": _torchvision("resnet152"),
    "resnext50_32x4d": _torchvision("resnext50_32x4d"),
    "se_resnet50": _timm("legacy_seresnet50"),
    "dpn92": _timm("dpn92"),
    "inception_resnet_v2": _timm("inception_resnet_v2"),
}

# --- the process ---------------------------------------------------------------------------------

RUNS: dict = {}


def info(threads: int) -> dict:
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    versions = {}
    for name in ("torch", "torchvision", "timm"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "versions": versions,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "onednn": torch.backends.mkldnn.is_available(),
    }


def build(form: str, model: str, mode: str, batch: int, dtype: str, shape: list[int]) -> dict:
    """Makes a form of a network and runs it once. A form is "eager", "channels_last" or
    "compile"; the last is channels-last as well."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    net = PEERS[model]().to(device)
    height, width, channels = shape
    images = torch.randn(batch, channels, height, width, device=device)
    labels = torch.randint(0, 10, (batch,), device=device)
    if form != "eager":
        net = net.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    params = sum(p.numel() for p in net.parameters())
    call = torch.compile(net) if form == "compile" else net
    half = getattr(torch, dtype)

    def forward():
        with torch.autocast(device, dtype=half, enabled=dtype != "float32"):
            return call(images)

    if mode == "train":
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)

        def run():
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(forward().float(), labels)
            loss.backward()
            optimizer.step()
            return loss

    else:
        net.eval()

        def run():
            with torch.inference_mode():
                return forward()

    began = time.perf_counter()
    run()
    _wait()
    if device == "cuda":
        torch.cuda.empty_cache()  # other processes build at the same time
    RUNS[form] = run
    return {"params": params, "first_seconds": time.perf_counter() - began}


def run(form: str, count: int) -> dict:
    began = time.perf_counter()
    for _ in range(count):
        RUNS[form]()
    _wait()
    return {"seconds": (time.perf_counter() - began) / count}


def memory(form: str, model: str, batch: int, shape: list[int]) -> dict:
    """Peak bytes of a training step: what is there before it, and what the allocator adds."""
    build(form, model, "train", batch, "float32", shape)
    step = RUNS.pop(form)
    there = sum(
        tensor.untyped_storage().nbytes()
        for tensor in {t.data_ptr(): t for t in filter(_is_tensor, gc.get_objects())}.values()
    )
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        most = max(most, level)
    return {"bytes": there + most}


def _is_tensor(found: object) -> bool:
    return issubclass(type(found), torch.Tensor) and found.data_ptr() != 0


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    commands = {"info": info, "build": build, "run": run, "memory": memory}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = commands[arguments.pop("command")](**arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
