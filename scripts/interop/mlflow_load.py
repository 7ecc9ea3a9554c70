"""Loads models by their names in a registry, as any MLflow user does, and predicts.

Usage: mlflow_load.py TRACKING_URI HEIGHT WIDTH MODEL_URI... Prints a JSON object on the last line: the
outputs of the fixed input by the name of the model.
"""

import json
import sys

import mlflow

from fixed_input import fixed_input


def main():
    tracking, height, width, *uris = sys.argv[1:]
    mlflow.set_tracking_uri(tracking)
    images = fixed_input((int(height), int(width), 3))
    models = {uri: mlflow.pyfunc.load_model(uri) for uri in uris}
    print(json.dumps({uri: model.predict(images)["probabilities"].tolist() for uri, model in models.items()}))


main()
