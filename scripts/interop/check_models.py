"""Loads models that nephros wrote: predicts, evaluates and trains one step.

Usage: check_models.py FOLDER. Every FOLDER/*.h5 is loaded with its compile state, and in Keras 3
every FOLDER/*.keras. Prints a JSON object on the last line: file name to outputs of the fixed
input, the shapes, the names of the layers, what was warned of while loading, and the loss before
and after a step. What was trained is saved again, to FOLDER/again, as each kind of file.
"""

import json
import os
import pathlib
import sys
import warnings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf

from fixed_input import fixed_input


KERAS_3 = not tf.keras.__version__.startswith("2.")


def check(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = tf.keras.models.load_model(path)
    images = fixed_input(model.input_shape[1:])
    outputs = model.predict(images, verbose=0)
    result = {
        "outputs": outputs.reshape(len(images), -1).tolist(),
        "input_shape": list(model.input_shape),
        "layers": [layer.name for layer in model.layers],
        "trainable": [layer.trainable for layer in model.layers],
        "optimizer": None,
        "warnings": [str(warning.message) for warning in caught],
    }
    # A base model is not compiled; Keras 3 then has no such attribute.
    if getattr(model, "optimizer", None) is not None:
        targets = np.eye(outputs.shape[1], dtype="float32")[np.arange(len(images)) % outputs.shape[1]]
        result["optimizer"] = type(model.optimizer).__name__
        result["learning_rate"] = float(np.array(model.optimizer.learning_rate))
        result["loss"] = float(model.evaluate(images, targets, verbose=0)[0])
        model.fit(images, targets, epochs=1, batch_size=len(images), verbose=0)
        result["loss_after"] = float(model.evaluate(images, targets, verbose=0)[0])
        for kind in ["h5", "keras"] if KERAS_3 else ["h5"]:
            model.save(path.parent / "again" / f"{path.stem}.{kind}")
    return result


def main():
    folder = pathlib.Path(sys.argv[1])
    (folder / "again").mkdir(exist_ok=True)
    paths = [*folder.glob("*.h5"), *(folder.glob("*.keras") if KERAS_3 else [])]
    results = {path.name: check(path) for path in sorted(paths)}
    print(json.dumps({"keras": tf.keras.__version__, "models": results}))


main()
