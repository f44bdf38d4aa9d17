"""Image files for tests: smooth photos with noise, and folders of them."""

import io

import numpy as np
from PIL import Image


def pixels(seed=0, height=96, width=128):
    """u8[H,W,3]: a few broad waves, and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width][..., None]
    phase = random.uniform(0, 6, 3)
    wave = np.sin(x / random.uniform(5, 20, 3) + y / random.uniform(5, 20, 3) + phase)
    noise = random.normal(0, 8, (height, width, 3))
    return np.clip(127 + 90 * wave + noise, 0, 255).astype(np.uint8)


def jpeg(array, mode="RGB", **options):
    """The JPEG file of an image u8[H,W,3]."""
    return encode(Image.fromarray(array).convert(mode), "JPEG", **options)


def encode(image, form, **options):
    """The file of a Pillow image."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def write_folder(root, counts, height=48, width=64):
    """PATH/<part>/<class>/<number>.jpg; counts is {part: {class: number of images}}."""
    seed = 0
    for part, classes in counts.items():
        for name, count in classes.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                seed += 1
                file = root / part / name / f"{i:03d}.jpg"
                file.write_bytes(jpeg(pixels(seed, height, width)))
    return root
