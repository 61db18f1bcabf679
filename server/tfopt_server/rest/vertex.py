"""Vertex AI's predict route: `{"instances": [...], "parameters": {...}}` -> `{"predictions": [...]}`.

The route is the platform's choice (AIP_PREDICT_ROUTE) and carries no model name: it serves the one configured model.
The body is TensorFlow Serving's, rows or columns, because raw predictions and private endpoints pass it through
untouched; `signature_name` may also stand in `parameters`, the only other key that `:predict` forwards. When the route
is one of TensorFlow Serving's own, as prebuilt images are configured, the path's model, version and label count.
"""

from __future__ import annotations

from functools import partial

from tfopt_server.dataplane import ModelSpec
from tfopt_server.rest.call import Handler
from tfopt_server.rest.explain import Explain
from tfopt_server.rest.open_inference import OpenInference
from tfopt_server.rest.predict import Predict
from tfopt_server.rest.tfs import PREFIX, Routes


def route(path: str, model: str, predict: Predict, serving: Routes, open_inference: OpenInference) -> Handler:
    """What answers POST on the platform's predict route `path`."""
    if path.startswith("/v2/models/"):  # raw predictions in the Open Inference Protocol's form
        return open_inference.find("POST", path)
    if path.lower().startswith(PREFIX + "models/"):
        return serving.find("POST", path, in_parameters=True)
    return partial(predict.answer, ModelSpec(model), True)


def explain_path(predict_path: str) -> str:
    """Where the model of a predict route is explained: Vertex AI itself has no route for it, because it explains by
    predicting."""
    stem = predict_path.removesuffix("predict")
    return f"{stem}explain" if stem != predict_path else f"{predict_path}:explain"


def explain_route(path: str, model: str, explain: Explain, serving: Routes) -> Handler:
    """What answers POST on `path`, which explain_path gave."""
    if path.lower().startswith(PREFIX + "models/"):
        return serving.find("POST", path)
    return partial(explain.answer, ModelSpec(model), True)
