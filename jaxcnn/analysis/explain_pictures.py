"""Draws the figures of `jaxcnn predict --explain`: Grad-CAM, and the strongest activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxcnn._files import any_path
from jaxcnn.analysis import explain
from jaxcnn.analysis.receptive_field import ReceptiveField, receptive_fields
from jaxcnn.data.preprocessing import Preprocessing, to_pixels
from jaxcnn.evaluation.predict import Prediction, preprocess_file
from jaxcnn.reporting.figures import make_figure, picture_name, plain_text, save

_BATCH = 4
_CHANNELS, _IMAGES = 5, 4


def explain_images(
    model: nn.Module,
    variables: Mapping[str, Any],
    paths: Sequence[str],
    preprocessing: Preprocessing,
    predictions: Sequence[Prediction],
    folder: str | Path,
) -> Iterator[Path]:
    """Writes figures that explain the predictions for image files.

    `NAME_gradcam.png` shows for each image Grad-CAM at the last feature maps and guided
    backpropagation, both for the predicted class. `patches_N_ENDPOINT.png` shows for each endpoint
    the channels with the strongest activations over all images: the image patches that cause them,
    cropped to the receptive field, and the deconvnet's view of each unit (Zeiler & Fergus 2013,
    figure 2).

    Args:
      model: the network.
      variables: its variables.
      paths: image files.
      preprocessing: the preprocessing that the weights were trained for.
      predictions: the prediction to explain for each image.
      folder: of the figures; created if it does not exist.

    Yields:
      The path of each figure when it has been written.
    """

    def read(path: str) -> np.ndarray:
        return preprocess_file(path, preprocessing)

    def shown(image: np.ndarray) -> np.ndarray:
        return to_pixels(image, preprocessing.mean, preprocessing.std)

    fields = receptive_fields(model, read(paths[0]).shape)
    if not fields:
        raise ValueError(
            f"{type(model).__name__} has no endpoints to explain; name them with "
            "`endpoint` of `jaxcnn.layers.Network`"
        )
    folder = any_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    look, project = _compile_programs(model, tuple(fields))
    taken: set[str] = set()
    names = [picture_name(path, taken) for path in paths]
    peaks: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in fields}
    for start in range(0, len(paths), _BATCH):
        chunk = list(range(start, min(start + _BATCH, len(paths))))
        images = _padded([read(paths[i]) for i in chunk], len(paths))
        wanted = [*(predictions[i].index for i in chunk), *[0] * (len(images) - len(chunk))]
        cams, views, places = jax.device_get(look(variables, images, np.array(wanted)))
        for name, peak in places.items():
            peaks[name].append(tuple(part[: len(chunk)] for part in peak))
        for j, i in enumerate(chunk):
            path = folder / f"{names[i]}_gradcam.png"
            best = predictions[i]
            title = f"{any_path(paths[i]).name}: {best.name}, {best.probability:.1%}"
            _draw_image(shown(images[j]), cams[j], views[j], title, path)
            yield path
    for number, (name, seen) in enumerate(fields.items(), 1):
        values, rows, columns = (np.concatenate(part) for part in zip(*peaks[name]))
        strongest = explain.strongest(values, _CHANNELS, _IMAGES)
        units = [(i, rows[i, k], columns[i, k], k) for k, chosen in strongest for i in chosen]
        patches = list(_patches(variables, project, name, seen, units, paths, read, shown))
        path = folder / f"patches_{number}_{name}.png"
        _draw_patches(name, seen, strongest, values, patches, path)
        yield path


def _compile_programs(model: nn.Module, endpoints: Sequence[str]) -> tuple[Any, Any]:
    """A function that analyzes a batch, and one that projects units of an endpoint to pixels."""

    @jax.jit
    def look(variables: Any, images: Any, classes: Any) -> tuple[Any, Any, Any]:
        seed = jax.nn.one_hot(classes, model.num_classes)
        cam = explain.grad_cam(model, variables, images, endpoints[-1], classes)
        view = explain.backward_view(model, variables, images, {explain.LOGITS: seed})
        _, state = model.apply(variables, images, train=False, mutable=["endpoints"])
        activations = state["endpoints"]
        return cam, view, {name: explain.peaks(activations[name]) for name in endpoints}

    @jax.jit
    def project(
        variables: Any, images: Any, on: Any, rows: Any, columns: Any, channels: Any
    ) -> jax.Array:
        shapes = jax.eval_shape(
            lambda: model.apply(variables, images, train=False, mutable=["endpoints"])[1]
        )["endpoints"]
        each = jnp.arange(len(images))
        seeds = {
            name: jnp.zeros(shapes[name].shape, shapes[name].dtype)
            .at[each, rows, columns, channels]
            .set(on[i], mode="drop")
            for i, name in enumerate(endpoints)
        }
        return explain.backward_view(model, variables, images, seeds, "deconvnet")

    return look, lambda variables, name, *rest: project(
        variables, rest[0], np.eye(len(endpoints))[endpoints.index(name)], *rest[1:]
    )


def _patches(
    variables: Mapping[str, Any],
    project: Any,
    name: str,
    seen: ReceptiveField,
    units: Sequence[tuple[int, int, int, int]],
    paths: Sequence[str],
    read: Callable[[str], np.ndarray],
    shown: Callable[[np.ndarray], np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(patch u8[h,w,C], the deconvnet's view f32[h,w,C]) of units (image, row, column, channel)."""
    size = min(_BATCH, len(units))
    for start in range(0, len(units), size):
        chunk = list(units[start : start + size])
        chunk += [chunk[0]] * (size - len(chunk))
        which, *place = zip(*chunk)
        images = np.stack([read(paths[i]) for i in which])
        views = np.asarray(project(variables, name, images, *map(np.array, place)))
        for j in range(min(size, len(units) - start)):
            _, row, column, _ = chunk[j]
            box = explain.patch_box(seen, row, column, images.shape[1:3])
            yield _patch(shown(images[j]), box, seen, 128), _patch(views[j], box, seen, 0)


def _patch(
    image: np.ndarray, box: tuple[int, int, int, int], seen: ReceptiveField, fill: int
) -> np.ndarray:
    """Cuts a patch [h,w,C] out of an image, in the size of the receptive field at borders as well.

    The part that is outside of the image has the value `fill`. If the field is larger than the
    image, the result is as large as the image and has this value outside of the field.
    """
    pads = []
    for axis, (first, last) in enumerate((box[:2], box[2:])):
        field, size = seen.size[axis], image.shape[axis]
        length = int(min(field, size))
        start = 0 if field > size else last - length if first == 0 else first
        pads.append((max(first - start, 0), max(start + length - last, 0)))
    cut = image[box[0] : box[1], box[2] : box[3]]
    return np.pad(cut, (*pads, (0, 0)), constant_values=fill)


def _padded(images: Sequence[np.ndarray], total: int) -> np.ndarray:
    """The images, padded to the batch size that is compiled."""
    size = min(_BATCH, total)
    return np.stack([*images, *[images[0]] * (size - len(images))])


def _draw_image(
    image: np.ndarray, cam: np.ndarray, view: np.ndarray, title: str, path: Path
) -> None:
    figure = make_figure(12, 3.8)
    figure.suptitle(plain_text(title))
    high, wide = image.shape[:2]
    stretched = Image.fromarray(cam.astype(np.float32)).resize(
        (wide, high), Image.Resampling.BILINEAR
    )
    heat = np.asarray(stretched) / max(float(cam.max()), 1e-12)
    panels = figure.subplots(1, 4)
    for axes, text in zip(panels, ("image", "Grad-CAM", "guided", "guided Grad-CAM")):
        axes.set_axis_off()
        axes.set_title(text, fontsize=10)
    gray: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255}
    panels[0].imshow(image.squeeze(), **gray)
    panels[1].imshow(image.squeeze(), **gray)
    panels[1].imshow(heat, cmap="jet", alpha=0.45, vmin=0, vmax=1)
    panels[2].imshow(_visible(view), cmap="gray", vmin=0, vmax=1)
    panels[3].imshow(_visible(view * heat[..., None]), cmap="gray", vmin=0, vmax=1)
    save(figure, path)


def _draw_patches(
    name: str,
    seen: ReceptiveField,
    best: Sequence[tuple[int, Sequence[int]]],
    values: np.ndarray,
    patches: Sequence[tuple[np.ndarray, np.ndarray]],
    path: Path,
) -> None:
    per_channel = len(best[0][1])
    figure = make_figure(2.5 * per_channel + 1.2, 1.35 * len(best) + 0.9)
    figure.suptitle(
        f"{name}: strongest activations (numbers), receptive field {seen}; left: image patch, "
        "right: deconvnet projection; gray: outside of the image",
        fontsize=9, wrap=True,
    )  # fmt: skip
    grid = figure.subplots(len(best), 2 * per_channel, squeeze=False)
    for row, (channel, chosen) in enumerate(best):
        grid[row, 0].set_ylabel(f"channel {channel}", fontsize=8)
        for column, i in enumerate(chosen):
            patch, view = patches[row * per_channel + column]
            left, right = grid[row, 2 * column : 2 * column + 2]
            left.imshow(patch.squeeze(), cmap="gray", vmin=0, vmax=255)
            left.set_title(f"{values[i, channel]:.3g}", fontsize=7)
            right.imshow(_visible(view), cmap="gray", vmin=0, vmax=1)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    save(figure, path)


def _visible(view: np.ndarray) -> np.ndarray:
    """A signed f32[h,w,C] scaled to [0, 1], with zero as gray."""
    reach = max(float(np.quantile(np.abs(view), 0.995)), 1e-12)
    return np.clip(view / reach / 2 + 0.5, 0, 1).squeeze()
