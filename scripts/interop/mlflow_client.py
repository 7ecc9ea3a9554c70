"""What MLflow's own client sees, for the tests of nephros-mlflow.

Usage: mlflow_client.py dump URI     prints all runs, models and versions as a JSON object, last line
       mlflow_client.py write URI N  logs a run with N metrics, the way any Python program does
       mlflow_client.py delete-run URI RUN | delete-experiment URI NAME
"""

import json
import math
import sys

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType


def number(value):
    return str(value) if math.isnan(value) or math.isinf(value) else value


def files(client, run, path=None):
    for file in client.list_artifacts(run, path):
        if file.is_dir:
            yield from files(client, run, file.path)
        else:
            yield file.path


def run_of(client, run):
    keys = sorted(run.data.metrics)
    history = {key: client.get_metric_history(run.info.run_id, key) for key in keys}
    outputs = getattr(getattr(run, "outputs", None), "model_outputs", None) or []
    return {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "user": run.info.user_id,
        "params": run.data.params,
        "tags": run.data.tags,
        "latest": {key: number(run.data.metrics[key]) for key in keys},
        "history": {key: [[m.step, number(m.value)] for m in values] for key, values in history.items()},
        "datasets": [
            [i.dataset.name, i.dataset.digest, {t.key: t.value for t in i.tags}.get("mlflow.data.context")]
            for i in run.inputs.dataset_inputs
        ],
        "outputs": [output.model_id for output in outputs],
        "artifacts": sorted(files(client, run.info.run_id)),
    }


def logged_models(client, experiments):
    if not hasattr(client, "search_logged_models"):
        return []
    return [
        {
            "id": model.model_id,
            "name": model.name,
            "run": model.source_run_id,
            "status": str(model.status.value),
            "tags": model.tags,
            "params": model.params,
            "files": sorted(file.path for file in client.list_logged_model_artifacts(model.model_id)),
        }
        for model in client.search_logged_models(experiments)
    ]


def version_of(client, version):
    full = client.get_model_version(version.name, version.version)
    return {
        "name": full.name,
        "version": int(full.version),
        "run": full.run_id,
        "source": full.source,
        "stage": full.current_stage,
        "aliases": sorted(full.aliases),
        "tags": full.tags,
        "location": client.get_model_version_download_uri(full.name, full.version),
    }


def dump(client):
    experiments = client.search_experiments(view_type=ViewType.ALL)
    ids = [experiment.experiment_id for experiment in experiments]
    versions = [version_of(client, version) for version in client.search_model_versions("")]
    return {
        "mlflow": mlflow.__version__,
        "experiments": sorted(experiment.name for experiment in experiments),
        "runs": [run_of(client, run) for run in client.search_runs(ids)],
        "logged_models": logged_models(client, ids),
        "versions": sorted(versions, key=lambda version: (version["name"], version["version"])),
    }


def write(count):
    mlflow.set_experiment("from-python")
    with mlflow.start_run(run_name="python"):
        mlflow.log_param("EPOCHS", 3)
        mlflow.set_tag("author", "Grüße")
        for step in range(count):
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        mlflow.log_metric("broken", float("nan"))
        mlflow.log_text("hello", "notes/a.txt")


def main():
    action, uri, *rest = sys.argv[1:]
    # MLflow 2 lists artifacts of the server that is set, not of the client's.
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri, uri)
    if action == "dump":
        print(json.dumps(dump(client)))
    elif action == "write":
        write(int(rest[0]))
    elif action == "delete-run":
        client.delete_run(rest[0])
    elif action == "delete-experiment":
        client.delete_experiment(client.get_experiment_by_name(rest[0]).experiment_id)
    else:
        sys.exit(f"unknown action {action}")


main()
