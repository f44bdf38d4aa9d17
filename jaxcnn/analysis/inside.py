"""What a trained network has learned: its first filters, its feature maps, its last features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxcnn.analysis.graph import Graph, read_graph
from jaxcnn.analysis.trace import trace
from jaxcnn.data.augment import pipeline
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.evaluation import protocols
from jaxcnn.evaluation.inference import TestSet, examples
from jaxcnn.runtime import compilation

Variables = Mapping[str, Any]


def first_filters(
    model: nn.Module, variables: Variables, input_size: Any
) -> tuple[str, np.ndarray]:
    """Returns the kernels of the first convolution.

    Args:
      model: the network.
      variables: its variables.
      input_size: height and width of its images.

    Returns:
      (path of the convolution, kernels f32[F,kh,kw,C]).

    Raises:
      ValueError: the network has no convolution.
    """
    graph = read_graph(trace(model, input_size, endpoints=True))
    for node in graph.nodes.values():
        if node.kind == "conv":
            params = variables["params"]
            for name in node.path:
                params = params[name]
            return "/".join(node.path), np.moveaxis(np.asarray(params["kernel"], np.float32), -1, 0)
    raise ValueError(f"{type(model).__name__} has no convolution")


def feature_maps(
    model: nn.Module, variables: Variables, image: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes the feature maps of one image, layer by layer.

    Args:
      model: the network.
      variables: its variables.
      image: f32[H,W,C], preprocessed.

    Returns:
      {layer: f32[h,w,c]}: the outputs of the modules directly below the network and the endpoints,
      in order of computation. Of maps that are equal, the first is returned.
    """
    graph = read_graph(trace(model, image.shape, endpoints=True))

    def is_below(module: nn.Module, method: str) -> bool:
        return method == "__call__" and len(module.path) == 1

    @compilation.jit
    def run(variables: Variables, images: Any) -> Any:
        _, state = model.apply(
            variables, images, train=False, mutable=["intermediates", "endpoints"],
            capture_intermediates=is_below,
        )  # fmt: skip
        outputs = {n: found["__call__"][0] for n, found in state["intermediates"].items()}
        return outputs, dict(state.get("endpoints", {}))

    outputs, endpoints = jax.device_get(run(variables, image[None]))
    found = {name: outputs[name] for name in _order(graph) if name in outputs}
    maps: dict[str, np.ndarray] = {}
    for name, value in [*found.items(), *endpoints.items()]:
        if not isinstance(value, np.ndarray) or value.ndim != 4 or min(value.shape[1:3]) < 2:
            continue
        array = np.asarray(value[0], np.float32)
        if not any(np.array_equal(array, other) for other in maps.values()):
            maps[name] = array
    return dict(sorted(maps.items(), key=lambda item: -item[1].shape[0]))  # stable


def _order(graph: Graph) -> list[str]:
    """The names of the modules directly below a network, in order of computation."""
    return list(dict.fromkeys(node.path[0] for node in graph.nodes.values() if node.path))


def make_features(model: nn.Module) -> Callable[[Variables, Any], Any]:
    """Returns a function that computes the input of the last dense layer.

    Args:
      model: the network.

    Returns:
      A function of (variables, images f32[N,H,W,C]) to features f32[N,D]. Of a network without a
      dense layer, it returns the logits.
    """

    def features(variables: Variables, images: Any) -> Any:
        found: list[Any] = []

        def keep(call: Any, args: Any, options: Any, context: Any) -> Any:
            if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
                found.append(args[0])
            return call(*args, **options)

        with nn.intercept_methods(keep):
            logits: Any = model.apply(variables, images, train=False)
        last = found[-1] if found else logits
        return last.reshape(len(images), -1)

    return features


def embed(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Maps features to two dimensions by t-SNE, which keeps neighbors together.

    Args:
      features: f32[N,D].
      seed: of the random numbers.

    Returns:
      f32[N,2]. Distances between groups that are far apart mean little.

    Raises:
      ValueError: there are fewer than five examples.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(features)
    if count < 5:
        raise ValueError(f"{count} examples are too few for a map; at least 5 are needed")
    reduced = PCA(min(50, count, features.shape[1]), random_state=seed).fit_transform(features)
    perplexity = min(30.0, (count - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)


def most_certain(
    probabilities: np.ndarray, labels: np.ndarray, count: int
) -> tuple[Sequence[int], Sequence[int]]:
    """Selects the most confident predictions that are correct, and those that are wrong.

    Args:
      probabilities: f32[N,K].
      labels: i32[N].
      count: of each, at most.

    Returns:
      Indices of the correct and of the wrong ones, the most confident first.
    """
    order = np.argsort(-probabilities.max(1), kind="stable")
    right = probabilities.argmax(1)[order] == labels[order]
    return order[right][:count].tolist(), order[~right][:count].tolist()


def predict_views(
    model: nn.Module,
    variables: Variables,
    views: np.ndarray,
    preprocessing: Preprocessing,
    batch_size: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes class probabilities and the features before the classifier.

    Args:
      model: the network.
      variables: its variables.
      views: u8[N,size,size,C].
      preprocessing: normalization of the images.
      batch_size: number of images per batch.

    Returns:
      Probabilities f32[N,K] and features f32[N,D].
    """
    features = make_features(model)

    @compilation.jit
    def apply(variables: Variables, views: Any) -> Any:
        images = pipeline.normalize(views, preprocessing.mean, preprocessing.std)
        logits: Any = model.apply(variables, images, train=False)
        return jax.nn.softmax(logits, -1), features(variables, images)

    found = []
    size = min(batch_size, len(views))
    for start in range(0, len(views), size):
        chunk = views[start : start + size]
        padded = np.concatenate([chunk, np.repeat(chunk[:1], size - len(chunk), 0)])
        found.append([np.asarray(a, np.float32)[: len(chunk)] for a in apply(variables, padded)])
    return tuple(map(np.concatenate, zip(*found)))  # type: ignore[return-value]


def read_views(
    test_set: TestSet, preprocessing: Preprocessing, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the central crops of evenly spaced examples of a test set.

    Args:
      test_set: to be read.
      preprocessing: size, crop and interpolation of the images.
      count: number of examples, at most.

    Returns:
      Images u8[N,size,size,C] and labels i32[N].
    """
    places = np.linspace(0, len(test_set) - 1, min(count, len(test_set))).round().astype(int)
    views, labels = [], []
    for image, label in examples(test_set, places.tolist()):
        [view] = protocols.all_views(
            image, protocols.PROTOCOLS["center"], preprocessing.size, preprocessing.crop,
            preprocessing.interpolation,
        )  # fmt: skip
        views.append(view[0])
        labels.append(label)
    return np.stack(views), np.array(labels, np.int32)
