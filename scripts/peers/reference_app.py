#!/usr/bin/env python3
"""The reference's own design, as its description says it: Flask, and the model read anew for each request.

    target/interop/mlflow3/bin/python scripts/peers/reference_app.py MODEL.h5 PORT

`POST /predict` takes `{"image": "<base64>"}`, writes the image to one file, loads the model, predicts from raw
pixels, and answers `[{"image": "Normal"}]`. It is here to be timed beside nephros, not to be used.
"""
import base64
import sys

import numpy as np
from flask import Flask, jsonify, request
from tensorflow.keras.models import load_model
from tensorflow.keras.preprocessing import image

MODEL, PORT = sys.argv[1], int(sys.argv[2])
UPLOAD = f"{MODEL}.upload.jpg"
app = Flask(__name__)


@app.route("/")
def home():
    return "up"


@app.route("/predict", methods=["POST"])
def predict():
    with open(UPLOAD, "wb") as file:
        file.write(base64.b64decode(request.json["image"]))
    model = load_model(MODEL, compile=False)
    pixels = image.img_to_array(image.load_img(UPLOAD, target_size=(224, 224)))
    result = np.argmax(model.predict(np.expand_dims(pixels, axis=0), verbose=0), axis=1)
    return jsonify([{"image": "Tumor" if result[0] == 1 else "Normal"}])


app.run(host="127.0.0.1", port=PORT, threaded=True)
