"""Checks and runs ONNX and safetensors files that nephros exported.

Usage: check_exports.py FOLDER. Prints a JSON object on the last line: file name to the outputs of
the fixed input and to what the file says about its model. An ONNX file has to pass the full check
of onnx and runs in onnxruntime; the arrays of a safetensors file run in NumPy, by the keys and axis
orders that docs/formats.md promises.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
import safetensors
from numpy.lib.stride_tricks import sliding_window_view

from fixed_input import fixed_input

# Keys of the convolutions (with their batch norms) between the poolings.
BLOCKS = {
    "vgg16": [[(0,), (2,)], [(5,), (7,)], [(10,), (12,), (14,)], [(17,), (19,), (21,)], [(24,), (26,), (28,)]],
    "vgg16-hypercolumn": [
        [(0,), (2,)], [(5,), (7,)], [(10,), (12,), (14,)], [(17,), (19,), (21,)], [(24,), (26,), (28,)]
    ],
    "compact": [[(0, 1)], [(4, 5)], [(8, 9)], [(12, 13), (15, 16)], [(19, 20)]],
    "compact-places": [[(0, 1)], [(4, 5)], [(8, 9)], [(12, 13), (15, 16)]],
}


def check_onnx(path):
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    batch = fixed_input(images.shape[1:])
    (outputs,) = session.run(None, {images.name: batch})
    # The batch is open: one image alone gives what it gives among others.
    (alone,) = session.run(None, {images.name: batch[1:2]})
    np.testing.assert_allclose(alone, outputs[1:2], atol=1e-6)
    model = onnx.load(str(path), load_external_data=False)
    return {
        "outputs": outputs.tolist(),
        "about": session.get_modelmeta().custom_metadata_map,
        "input": [images.name, images.type, images.shape],
        "output": [probabilities.name, probabilities.type, probabilities.shape],
        "ir_version": model.ir_version,
        "opset": [entry.version for entry in model.opset_import],
        "operators": sorted({node.op_type for node in model.graph.node}),
    }


def convolve(values, kernel, bias):
    """`values` [batch, in, height, width], `kernel` [out, in, 3, 3]; zeros around."""
    windows = sliding_window_view(np.pad(values, [(0, 0), (0, 0), (1, 1), (1, 1)]), (3, 3), axis=(2, 3))
    sums = np.tensordot(windows, kernel, axes=([1, 4, 5], [1, 2, 3]))
    return np.moveaxis(sums, -1, 1) + bias[:, None, None]


def halve(values):
    batch, channels, height, width = values.shape
    values = values[:, :, : height // 2 * 2, : width // 2 * 2]
    return values.reshape(batch, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5))


def hypercolumn(early, last):
    """The mean of the earlier map over squares of four places beside the last map, the channels of either of unit
    length at each place."""
    height, width = (extent // 2 * 2 for extent in early.shape[2:])
    squares = early[:, :, :height, :width].reshape(*early.shape[:2], height // 2, 2, width // 2, 2)
    maps = squares.mean(axis=(3, 5)), last
    lengths = (np.sqrt(np.maximum((values**2).sum(axis=1, keepdims=True), 1e-12)) for values in maps)
    return np.concatenate([values / length for values, length in zip(maps, lengths)], axis=1)


def largest_evidence(arrays, values):
    """Of each class but the first: the largest mean over 3 by 3 places of what a place shows of it."""
    evidence = np.einsum("kc,bchw->bkhw", arrays["head.places.weight"], values)
    evidence += arrays["head.places.bias"][:, None, None]
    windows = sliding_window_view(evidence, (3, 3), axis=(2, 3))
    return windows.mean(axis=(4, 5)).max(axis=(2, 3))


def forward(arrays, architecture, images):
    values = images.transpose(0, 3, 1, 2).astype(np.float64)
    blocks = BLOCKS[architecture]
    for number, block in enumerate(blocks):
        for conv, *norm in block:
            values = convolve(values, arrays[f"features.{conv}.weight"], arrays[f"features.{conv}.bias"])
            for key in norm:
                weight, bias, mean, variance = (
                    arrays[f"features.{key}.{name}"][:, None, None]
                    for name in ("weight", "bias", "running_mean", "running_var")
                )
                values = (values - mean) / np.sqrt(variance + 1e-5) * weight + bias
            values = np.maximum(values, 0)
        if architecture == "compact" and number == len(blocks) - 1:
            values = values.mean(axis=(2, 3), keepdims=True)
        elif architecture == "compact-places" and number == len(blocks) - 1:
            values = largest_evidence(arrays, values)
        else:
            values = halve(values)
            if architecture == "vgg16-hypercolumn" and number == len(blocks) - 1:
                values = hypercolumn(fourth, values)
            fourth = values
    values = values.reshape(len(values), -1)
    if "head.hidden.weight" in arrays:
        values = np.maximum(values @ arrays["head.hidden.weight"].T + arrays["head.hidden.bias"], 0)
    logits = values @ arrays["head.weight"].T + arrays["head.bias"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def check_safetensors(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["nephros"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}
    images = fixed_input(about["preprocessing"]["image_size"])
    return {"outputs": forward(arrays, about["architecture"], images).tolist(), "about": about}


def main():
    folder = pathlib.Path(sys.argv[1])
    results = {path.name: check_onnx(path) for path in sorted(folder.glob("*.onnx"))}
    results |= {path.name: check_safetensors(path) for path in sorted(folder.glob("*.safetensors"))}
    versions = f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
    print(json.dumps({"versions": versions, "models": results}))


main()
