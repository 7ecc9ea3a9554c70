"""What an image goes through before an exported model sees it, as nephros does it.

Copy this file beside your own code. `prepare(image, preprocessing)` takes a PIL image and the field
`preprocessing` that every exported file has, and gives float32 `[height, width, 3]`; stack several for
a batch. Needs NumPy and Pillow. The values are those of nephros, bit for bit (check_pixels.py).
"""

import numpy as np
from PIL import Image
from numpy.lib.stride_tricks import sliding_window_view

TISSUE = 30  # mean of a pixel's channels from which it may be the patient
GRID = 128  # cells along the longer side of the image
LEAST_SHARE = 0.02  # of the image, for a body
LEAST_PIECE = 0.005  # of the image, for a piece of it where all count
MARGIN = 0.02  # around the body, of the longer side of its box, or of its width for a band


def prepare(image, preprocessing):
    height, width, _ = preprocessing["image_size"]
    pixels = image.convert("RGB")
    pieces = preprocessing.get("body", "largest_piece")
    if pieces not in ("largest_piece", "all_pieces"):
        raise ValueError(f"body: expected largest_piece or all_pieces, got {pieces}; is this file up to date?")
    if preprocessing.get("crop") == "body":
        pixels = crop_to_body(pixels, pieces)
    elif preprocessing.get("crop") == "band":
        pixels = crop_to_band(pixels, height / width, pieces)
    elif "crop" in preprocessing:
        raise ValueError(f"crop: expected body or band, got {preprocessing['crop']}; is this file up to date?")
    filters = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
    pixels = pixels.resize((width, height), filters[preprocessing["resample"]])
    return normalize(np.asarray(pixels, np.float32), preprocessing["normalization"])


def normalize(values, normalization):
    """`values` are red, green and blue, 0 to 255."""
    if normalization == "caffe":
        return values[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    values = values / np.float32(255)
    if normalization == "torchvision":
        return (values - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return values


def crop_to_body(image, pieces):
    """The square around the body, black where it leaves the image."""
    top, left, bottom, right, margin = body(np.asarray(image), pieces)
    longer = max(bottom - top, right - left)
    side = longer + 2 * int(longer * margin + 0.5)
    top, left = (top + bottom) // 2 - side // 2, (left + right) // 2 - side // 2
    return image.crop((left, top, left + side, top + side))


def crop_to_band(image, proportion, pieces):
    """As wide as the body, `proportion` as high, about its middle; black where it leaves the image."""
    top, left, bottom, right, margin = body(np.asarray(image), pieces)
    width = right - left + 2 * int((right - left) * margin + 0.5)
    height = max(int(width * proportion + 0.5), 1)
    top, left = (top + bottom) // 2 - height // 2, (left + right) // 2 - width // 2
    return image.crop((left, top, left + width, top + height))


def body(pixels, pieces):
    """Box of the largest connected piece of tissue, or of all that are large enough, without what is thinner than
    three cells."""
    height, width, _ = pixels.shape
    cell = -(-max(height, width) // GRID)
    rows, columns = np.arange(0, height, cell), np.arange(0, width, cell)

    def per_cell(values):
        return np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)

    sums, counts = per_cell(pixels.sum(axis=2, dtype=np.int64)), per_cell(np.full((height, width), 3))
    tissue = window(window(sums >= TISSUE * counts, np.all), np.any)
    found = connected_pieces(tissue)
    # Of equal ones the first from the top.
    cells, box = max(found, key=lambda piece: piece[0], default=(0, None))
    if cells * cell * cell / (height * width) < LEAST_SHARE:
        return 0, 0, height, width, 0.0
    least = LEAST_PIECE * (width * height) / (cell * cell)
    boxes = [box] + [box for cells, box in found if pieces == "all_pieces" and cells >= least]
    (top, left), (bottom, right) = np.min(boxes, axis=0)[:2].tolist(), np.max(boxes, axis=0)[2:].tolist()
    return top * cell, left * cell, min(bottom * cell, height), min(right * cell, width), MARGIN


def window(mask, condition):
    """Whether all or any cells of each 3×3 window are set; what lies beyond the edge does not count."""
    padded = np.pad(mask, 1, constant_values=condition is np.all)
    return condition(sliding_window_view(padded, (3, 3)), axis=(2, 3))


def connected_pieces(mask):
    """Size and box of each 4-connected piece, from the top."""
    mask, found = mask.copy(), []
    for start in zip(*np.nonzero(mask)):
        if not mask[start]:
            continue
        mask[start] = False
        piece, open_cells = [], [start]
        while open_cells:
            row, column = open_cells.pop()
            piece.append((row, column))
            for near in (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1):
                if all(0 <= at < length for at, length in zip(near, mask.shape)) and mask[near]:
                    mask[near] = False
                    open_cells.append(near)
        (top, left), (bottom, right) = np.min(piece, axis=0), np.max(piece, axis=0)
        found.append((len(piece), (int(top), int(left), int(bottom) + 1, int(right) + 1)))
    return found
