"""Trains a detector on a dataset: a recording with labels and parts.

python train.py set-1

The card of the dataset (croissant.json) says which columns are signals and which one is the label.
The part `train` teaches a random forest, `validation` chooses the limit above which its score is an
alarm, and `test` says how good it is.  The model goes into detector.joblib, and parameters and
metrics into MLflow if it is installed.
"""

import json
import os
import sys
from pathlib import Path

import duckdb
import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score, precision_score, recall_score

PARAMETERS = {"n_estimators": 50, "max_depth": 8, "min_samples_leaf": 5, "random_state": 0}
LIMITS = np.linspace(0.1, 0.9, 17)
MODEL = Path("detector.joblib")
PARTS = ("train", "validation", "test")


def columns_of(card: dict) -> tuple[dict[str, list[str]], tuple[str, str]]:
    """The columns of signals by their file, and the file and column of the label."""
    signals, label = {}, None
    for record_set in card["recordSet"]:
        for field in record_set["field"]:
            kinds = np.atleast_1d(field["dataType"])
            source = field.get("source")
            if source and "cr:Label" in kinds:
                label = (source["fileObject"]["@id"], source["extract"]["column"])
            elif source and "sc:Float" in kinds:
                file = signals.setdefault(source["fileObject"]["@id"], [])
                file.append(source["extract"]["column"])
    if label is None or len(signals) != 1:
        sys.exit("this program wants a dataset with one stream of signals and a label")
    return signals, label


def read(dataset: Path) -> tuple[list[str], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The names of the signals, and for each part its rows, float64[n, signals], and labels."""
    card = json.loads((dataset / "croissant.json").read_text())
    signals, (label_file, label) = columns_of(card)
    ((file, names),) = signals.items()
    machine = duckdb.read_parquet(str(dataset / file)).order("time").fetchnumpy()
    labelled = duckdb.read_parquet(str(dataset / label_file)).order("time").fetchnumpy()
    at = np.searchsorted(labelled["time"], machine["time"], side="right") - 1  # it holds until then
    labels = np.ma.filled(labelled[label], fill_value=False).astype(bool)[at]
    rows = np.column_stack([np.ma.filled(machine[name], np.nan) for name in names])
    known = np.isfinite(rows).all(axis=1) & (at >= 0)
    places = {part: known & (machine["split"] == part) for part in PARTS}
    return names, {part: (rows[at], labels[at]) for part, at in places.items()}


def log(parameters: dict, metrics: dict) -> str:
    """Log to MLflow, if it is installed; returns what became of it.

    Into files in ./mlruns, which need no server and no database, or where MLFLOW_TRACKING_URI says.
    """
    os.environ.setdefault("MLFLOW_TRACKING_URI", "mlruns")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for it
    try:
        import mlflow  # noqa: PLC0415 - the example works without
    except ImportError:
        return "MLflow is not installed: parameters and metrics are printed alone"
    with mlflow.start_run(run_name="pump-rig detector"):
        mlflow.log_params(parameters)
        mlflow.log_metrics(metrics)
        mlflow.log_artifact(str(MODEL))
    return f"logged to MLflow at {mlflow.get_tracking_uri()}"


def main(dataset: Path) -> None:
    names, parts = read(dataset)
    model = RandomForestClassifier(**PARAMETERS).fit(*parts["train"])
    rows, labels = parts["validation"]
    scores = model.predict_proba(rows)[:, 1]
    limit = float(max(LIMITS, key=lambda each: f1_score(labels, scores > each)))
    rows, labels = parts["test"]
    alarms = model.predict_proba(rows)[:, 1] > limit
    metrics = {
        "test_f1": f1_score(labels, alarms),
        "test_precision": precision_score(labels, alarms),
        "test_recall": recall_score(labels, alarms),
        "test_false_alarm_rate": float(alarms[~labels].mean()),
    }
    joblib.dump({"signals": names, "model": model, "limit": limit}, MODEL)
    for part, (rows, labels) in parts.items():
        print(f"{part}: {len(rows):,} rows, {int(labels.sum()):,} with a fault")
    for name, value in {"limit": limit, **metrics}.items():
        print(f"{name}: {value:.3f}")
    print(log(PARAMETERS | {"limit": limit, "dataset": dataset.name}, metrics))
    print(f"wrote {MODEL}")


main(Path(sys.argv[1]))
