"""Prepares images by prepare.py.

Usage: check_pixels.py FOLDER. For each FOLDER/*.png and each FOLDER/*.json, a preprocessing, writes
IMAGE.PREPROCESSING.f32: little-endian floats `[height, width, 3]`. Prints a JSON object on the last
line: the versions and the number of files.
"""

import json
import pathlib
import sys

import numpy as np
import PIL
from PIL import Image

from prepare import prepare


def main():
    folder = pathlib.Path(sys.argv[1])
    written = {}
    for path in folder.glob("*.json"):
        preprocessing = json.loads(path.read_text())
        for image in folder.glob("*.png"):
            values = prepare(Image.open(image), preprocessing)
            name = f"{image.stem}.{path.stem}.f32"
            values.astype("<f4").tofile(folder / name)
            written[name] = list(values.shape)
    print(json.dumps({"versions": f"NumPy {np.__version__}, Pillow {PIL.__version__}", "models": written}))


main()
