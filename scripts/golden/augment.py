"""Golden values of Keras 2.12's ImageDataGenerator for nephros-train's augmentation.

    pip install tensorflow==2.12.0 scipy pillow
    python scripts/golden/augment.py

Writes to crates/nephros-train/tests/golden/augment: `transforms.json` (the parameters, in Keras'
names) and `images.bin` (little-endian f32, [1 + transforms, 24, 24, 3]: the input, then each output).
"""

import json
import os
import pathlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from keras.preprocessing.image import ImageDataGenerator

OUT = pathlib.Path(__file__).parents[2] / "crates/nephros-train/tests/golden/augment"
# Square: on others Keras turns and scales about a point off the centre, see Transform::affine.
HEIGHT, WIDTH = 24, 24
STILL = {
    "theta": 0.0,
    "tx": 0.0,
    "ty": 0.0,
    "shear": 0.0,
    "zx": 1.0,
    "zy": 1.0,
    "flip_horizontal": False,
    "flip_vertical": False,
}
TRANSFORMS = [
    {"theta": 33.0},
    {"tx": 3.7},
    {"ty": -4.2},
    {"shear": 11.0},
    {"zx": 0.83, "zy": 1.17},
    {"flip_horizontal": True},
    {"flip_vertical": True},
    {"theta": -40.0, "tx": 2.5, "ty": 4.8, "shear": 0.2, "zx": 1.2, "zy": 0.8, "flip_horizontal": True, "flip_vertical": True},
]


def main():
    assert keras.__version__.startswith("2.12"), keras.__version__
    rng = np.random.default_rng(3)
    y, x, c = np.mgrid[0:HEIGHT, 0:WIDTH, 0:3]
    image = (x * 9 + y * (2 + c) + rng.integers(0, 40, x.shape)).clip(0, 255).astype(np.float32)
    generator = ImageDataGenerator(fill_mode="nearest", data_format="channels_last")
    transforms = [{**STILL, **changed} for changed in TRANSFORMS]
    outputs = [generator.apply_transform(image.copy(), transform) for transform in transforms]
    OUT.mkdir(parents=True, exist_ok=True)
    np.stack([image, *outputs]).astype("<f4").tofile(OUT / "images.bin")
    value = {"keras": keras.__version__, "height": HEIGHT, "width": WIDTH, "transforms": transforms}
    (OUT / "transforms.json").write_text(json.dumps(value, indent=1) + "\n")


main()
