"""Loads model folders that nephros wrote as MLflow does, by each of their flavors.

Usage: check_mlflow.py FOLDER. Prints a JSON object on the last line: name of each FOLDER/*/ to the
outputs of the fixed input by flavor, and its signature and metadata.
"""

import json
import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import mlflow
import onnxruntime

from fixed_input import fixed_input


def check(path):
    info = mlflow.models.get_model_info(str(path))
    (image,) = info.signature.inputs.inputs
    images = fixed_input(image.shape[1:])
    pyfunc = mlflow.pyfunc.load_model(str(path))
    session = onnxruntime.InferenceSession(mlflow.onnx.load_model(str(path)).SerializeToString())
    keras = mlflow.tensorflow.load_model(str(path))
    return {
        "outputs": {
            "python_function": pyfunc.predict(images)["probabilities"].tolist(),
            "onnx": session.run(None, {"images": images})[0].tolist(),
            "tensorflow": keras.predict(images, verbose=0).tolist(),
        },
        "flavors": sorted(info.flavors),
        "inputs": info.signature.inputs.to_dict(),
        "outputs_schema": info.signature.outputs.to_dict(),
        "metadata": info.metadata,
    }


def main():
    folder = pathlib.Path(sys.argv[1])
    results = {path.name: check(path) for path in sorted(folder.iterdir())}
    print(json.dumps({"versions": f"MLflow {mlflow.__version__}", "models": results}))


main()
