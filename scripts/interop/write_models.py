"""Writes models as the reference does, for nephros to read.

Usage: write_models.py FOLDER. Prints a JSON object on the last line: file name to the outputs of
the fixed input.

The weights are random, wide enough that the signal survives 13 layers and the classes differ.
"""

import json
import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf

from fixed_input import fixed_input

layers = tf.keras.layers
SHAPE = (64, 96, 3)
random = np.random.default_rng(5)


def randomize(model):
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            kernel, bias = layer.get_weights()
            scale = np.sqrt(2 / np.prod(kernel.shape[:-1]))
            layer.set_weights([random.normal(0, scale, kernel.shape), random.normal(0, 0.1, bias.shape)])


def vgg16(shape=SHAPE, frozen=True):
    base = tf.keras.applications.VGG16(input_shape=shape, weights=None, include_top=False)
    randomize(base)
    base.trainable = not frozen
    return base


def reference(head, shape=SHAPE, optimizer=None):
    """`prepare_base_model` of the reference: the base, flattened, with a dense softmax."""
    base = vgg16(shape)
    values = layers.Flatten()(base.output)
    for layer in head:
        values = layer(values)
    model = tf.keras.Model(inputs=base.input, outputs=values)
    randomize(model)
    optimizer = optimizer or tf.keras.optimizers.SGD(learning_rate=0.01)
    model.compile(optimizer=optimizer, loss=tf.keras.losses.CategoricalCrossentropy(), metrics=["accuracy"])
    return model


def nested():
    """The form of most tutorials: the base as one layer of a Sequential model."""
    base = vgg16()
    head = [layers.Flatten(), layers.Dense(6, activation="relu"), layers.Dropout(0.5)]
    model = tf.keras.Sequential([base, *head, layers.Dense(3, activation="softmax", use_bias=True)])
    model.build((None, *SHAPE))
    for layer in model.layers:
        if isinstance(layer, layers.Dense):
            kernel, bias = layer.get_weights()
            layer.set_weights([random.normal(0, 0.05, kernel.shape), random.normal(0, 0.1, bias.shape)])
    return model


def trained():
    """Saved after a step, so that the file holds the optimizer's state."""
    hidden = layers.Dense(16, activation="relu")
    model = reference([hidden, layers.Dense(2, activation="softmax")], optimizer=tf.keras.optimizers.Adam())
    model.fit(fixed_input(SHAPE), np.eye(2, dtype="float32")[[0, 1, 0]], verbose=0)
    return model


def main():
    folder = pathlib.Path(sys.argv[1])
    models = {
        "model.h5": reference([layers.Dense(2, activation="softmax")]),
        "hidden.h5": trained(),
        "nested.h5": nested(),
        "base_model.h5": vgg16(),
        "full_size.h5": reference([layers.Dense(2, activation="softmax")], shape=(224, 224, 3)),
    }
    results = {}
    for name, model in models.items():
        model.save(folder / name)
        outputs = model.predict(fixed_input(model.input_shape[1:]), verbose=0)
        results[name] = outputs.reshape(len(outputs), -1).tolist()
    if not tf.keras.__version__.startswith("2."):
        for name in ("model", "hidden", "nested"):
            models[f"{name}.h5"].save(folder / f"{name}.keras")
            results[f"{name}.keras"] = results[f"{name}.h5"]
    else:
        # Keras 3 writes another kind of weights file; the published ones are of this kind.
        models["base_model.h5"].save_weights(folder / "notop_weights.h5")
    print(json.dumps({"keras": tf.keras.__version__, "models": results}))


main()
