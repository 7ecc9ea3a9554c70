"""Golden values of Pillow 13.0.0 for nephros-core's pixels.

    pip install pillow==13.0.0 numpy
    python scripts/golden/pil.py [SHARED_DATA_FOLDER]

Writes small synthetic images and `pil.json` (what Pillow makes of them) to
crates/nephros-core/tests/golden/pixels. With a folder of the real datasets it also writes
`pil_scans.json`: hashes of 20 scans of each zip, no pixels.
"""

import hashlib
import io
import json
import pathlib
import sys
import warnings
import zipfile

import numpy as np
import PIL
from PIL import Image

OUT = pathlib.Path(__file__).parents[2] / "crates/nephros-core/tests/golden/pixels"
RESIZES = [(17, 11), (64, 80), (50, 37), (1, 1), (23, 37), (50, 9)]
ZIPS = ["kidney-ct-4class.zip", "kidney-ct-scan-image.zip"]
SCANS_PER_ZIP = 20


def sha(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def rgb(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def drawn(width=50, height=37, channels=3, seed=7):
    """Gradients, an edge and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * (3 + c) + y * (5 - c)) % 256 for c in range(channels)]
    image = np.stack(planes, -1).astype(np.int64)
    image[height // 3 : height // 2, width // 4 : width // 2] = 250
    image += rng.integers(-20, 20, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def with_sampling(side, subsampling, factors):
    """A square JPEG with luma sampling factors that Pillow does not write.

    The blocks of one layout are declared to be of another with as many: a valid file, whose
    picture is shuffled.
    """
    data = bytearray(saved(Image.fromarray(drawn(side, side)), "JPEG", subsampling=subsampling))
    frame = data.index(b"\xff\xc0")
    data[frame + 11] = factors
    return bytes(data)


def images():
    colour = Image.fromarray(drawn())
    grey = Image.fromarray(drawn(channels=1)[..., 0])
    alpha = Image.fromarray(drawn(channels=4))
    two = Image.fromarray(drawn(channels=2), "LA")
    inks = Image.fromarray(drawn(channels=4), "CMYK")
    deep = Image.fromarray((drawn(channels=1)[..., 0].astype(np.uint16) * 7) % 900)
    one = grey.convert("1")
    palette = colour.quantize(61)
    files = {}
    for name, subsampling in [("444", 0), ("422", 1), ("420", 2)]:
        files[f"rgb_{name}.jpg"] = saved(colour, "JPEG", quality=85, subsampling=subsampling)
    files["rgb_progressive.jpg"] = saved(colour, "JPEG", quality=80, progressive=True)
    files["rgb_restart.jpg"] = saved(colour, "JPEG", quality=70, restart_marker_blocks=2)
    files["rgb_440.jpg"] = with_sampling(48, 1, 0x12)
    files["rgb_411.jpg"] = with_sampling(64, 2, 0x41)
    files["rgb_keep_rgb.jpg"] = saved(colour, "JPEG", quality=85, keep_rgb=True)
    files["grey.jpg"] = saved(grey, "JPEG", quality=90)
    files["grey_progressive.jpg"] = saved(grey, "JPEG", quality=60, progressive=True)
    files["cmyk.jpg"] = saved(inks, "JPEG", quality=90)
    files["tiny.jpg"] = saved(colour.crop((0, 0, 1, 1)), "JPEG")
    exif = Image.Exif()
    exif[274] = 6
    files["exif_rotated.jpg"] = saved(colour, "JPEG", exif=exif)
    files["no_end_marker.jpg"] = files["rgb_420.jpg"][:-2]
    files["truncated.jpg"] = files["rgb_420.jpg"][:900]
    files["truncated_progressive.jpg"] = files["rgb_progressive.jpg"][:900]

    files["rgb.png"] = saved(colour, "PNG")
    files["rgba.png"] = saved(alpha, "PNG")
    files["la.png"] = saved(two, "PNG")
    files["palette.png"] = saved(palette, "PNG")
    files["palette_transparent.png"] = saved(palette, "PNG", transparency=3)
    files["one_bit.png"] = saved(one, "PNG")
    files["four_bit.png"] = saved(grey.quantize(16), "PNG", bits=4)
    files["grey.png"] = saved(grey, "PNG")
    files["grey_transparent.png"] = saved(grey, "PNG", transparency=250)
    files["grey16.png"] = saved(deep, "PNG")
    files["grey16_transparent.png"] = png16(deep, transparent=900)
    files["rgb16.png"] = png16(np.asarray(colour).astype(np.uint16) * 257 + 100)
    files["la16.png"] = png16(np.asarray(two).astype(np.uint16) * 256 + 200)
    files["truncated.png"] = files["rgb.png"][: len(files["rgb.png"]) // 2]

    files["rgb.bmp"] = saved(colour, "BMP")
    files["rgba.bmp"] = saved(alpha, "BMP")
    files["grey.bmp"] = saved(grey, "BMP")
    files["palette.bmp"] = saved(palette, "BMP")
    files["one_bit.bmp"] = saved(one, "BMP")

    files["rgb.tiff"] = saved(colour, "TIFF", compression="tiff_adobe_deflate")
    files["rgb_lzw.tiff"] = saved(colour, "TIFF", compression="tiff_lzw")
    files["grey.tiff"] = saved(grey, "TIFF", compression="packbits")
    files["grey16.tiff"] = saved(deep, "TIFF", compression="tiff_lzw")
    files["one_bit.tiff"] = saved(one, "TIFF", compression="packbits")
    files["rgba.tiff"] = saved(alpha, "TIFF", compression="tiff_lzw")
    files["rotated.tiff"] = saved(colour, "TIFF", compression="tiff_lzw", tiffinfo={274: 6})

    files["lossless.webp"] = saved(colour, "WEBP", lossless=True)
    files["lossy.webp"] = saved(colour, "WEBP", quality=80)
    files["lossless_alpha.webp"] = saved(alpha, "WEBP", lossless=True, exact=True)
    files["lossy_alpha.webp"] = saved(alpha, "WEBP", quality=70, exact=True)
    return files


def png16(values, transparent=None):
    """A 16-bit PNG, which Pillow writes only for grey."""
    import struct
    import zlib

    values = np.asarray(values).astype(">u2")
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    kind = {1: 0, 2: 4, 3: 2}[channels]

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    trns = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + trns + data + chunk(b"IEND", b"")


def expected(data):
    try:
        image = rgb(data)
    except (OSError, SyntaxError, ValueError) as error:
        return {"error": str(error)}
    resized = {}
    for width, height in RESIZES:
        both = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
        resized[f"{width}x{height}"] = [sha(image.resize((width, height), filter)) for filter in both]
    return {"size": image.size, "sha256": sha(image), "resized": resized}


def shortest_accepted(data):
    """The fewest leading bytes that Pillow decodes, if every longer prefix decodes too."""
    accepted = [not expected_error(data[:length]) for length in range(1, len(data) + 1)]
    shortest = accepted.index(True) + 1
    assert all(accepted[shortest - 1 :])
    return shortest


def expected_error(data):
    try:
        rgb(data)
    except (OSError, SyntaxError, ValueError):
        return True
    return False


def random_sizes():
    """Sizes drawn at random, resized from a drawn image to another drawn size."""
    rng = np.random.default_rng(11)
    cases = []
    for _ in range(60):
        width, height, to_width, to_height = (int(v) for v in rng.integers(1, 90, 4))
        # The pixels are a formula, so that a test can make them without a file.
        index = np.arange(width * height * 3, dtype=np.uint64)
        pixels = (index * 2654435761 % 4294967296 >> 24).astype(np.uint8)
        image = Image.frombytes("RGB", (width, height), pixels.tobytes())
        both = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
        hashes = [sha(image.resize((to_width, to_height), filter)) for filter in both]
        cases.append([width, height, to_width, to_height, *hashes])
    return cases


def scans(folder):
    values = {}
    for name in ZIPS:
        with zipfile.ZipFile(folder / name) as archive:
            members = sorted(m for m in archive.namelist() if m.lower().endswith((".jpg", ".jpeg", ".png")))
            stride = len(members) // SCANS_PER_ZIP
            values[name] = {}
            for member in members[::stride][:SCANS_PER_ZIP]:
                image = rgb(archive.read(member))
                both = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
                hashes = [sha(image.resize((224, 224), filter)) for filter in both]
                values[name][member] = [sha(image), *hashes]
    return values


def write(name, value):
    (OUT / name).write_text(json.dumps(value, indent=1) + "\n")


def main():
    assert PIL.__version__ == "13.0.0", PIL.__version__
    warnings.simplefilter("ignore")
    OUT.mkdir(parents=True, exist_ok=True)
    files = images()
    for name, data in files.items():
        (OUT / name).write_bytes(data)
    prefixes = ["rgb_420.jpg", "rgb_progressive.jpg", "grey.jpg", "cmyk.jpg", "rgb_restart.jpg"]
    write(
        "pil.json",
        {
            "pillow": PIL.__version__,
            "images": {name: expected(data) for name, data in files.items()},
            "shortest_accepted": {name: shortest_accepted(files[name]) for name in prefixes},
            "random_sizes": random_sizes(),
        },
    )
    if len(sys.argv) > 1:
        write("pil_scans.json", {"pillow": PIL.__version__, "zips": scans(pathlib.Path(sys.argv[1]))})


main()
