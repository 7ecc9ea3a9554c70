#!/usr/bin/env python3
"""Golden values of the metrics: python3 -m venv v && v/bin/pip install scikit-learn==1.5.2 && v/bin/python scripts/golden/metrics.py

Writes crates/nephros-train/src/evaluate/golden/metrics.json: labels and f32 probabilities drawn from a
fixed seed, with ties, and what scikit-learn says of them.
"""
import json, pathlib
import numpy as np
from sklearn import metrics as m
from sklearn.calibration import calibration_curve

BINS = 15

def calibration(labels, q, predicted):
    """Bins (n, confidence, accuracy) and the expected calibration error of the most probable class."""
    confidence, right = q.max(1), (predicted == labels).astype(int)
    accuracies, confidences = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
    # The bins that calibration_curve left out are those that the same edges leave empty.
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=BINS)
    counts = counts[counts > 0]
    ece = (counts * np.abs(accuracies - confidences)).sum() / len(labels)
    return [[int(n), c, a] for n, c, a in zip(counts, confidences, accuracies)], float(ece)

def brier(labels, q, classes):
    if classes == 2:
        return float(m.brier_score_loss(labels, q[:, 1]))
    return float(sum(np.mean((q[:, c] - (labels == c)) ** 2) for c in range(classes)))

def case(name, classes, n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.standard_normal((n, classes)) + 1.2 * np.eye(classes)[labels]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # Two decimals make ties among the scores.
    p = np.round(p, 2); p[:, -1] = 1 - p[:, :-1].sum(1)
    p = np.clip(p, 0, 1).astype(np.float32)
    q = p.astype(np.float64)
    predicted = q.argmax(1)
    binary = classes == 2
    how = dict(average="binary" if binary else "macro", zero_division=0)
    confusion = m.confusion_matrix(labels, predicted, labels=range(classes))
    def specificity(c):
        others = [k for k in range(classes) if k != c]
        return confusion[np.ix_(others, others)].sum() / confusion[others].sum()
    each = [1] if binary else range(classes)
    loss = -np.log(np.maximum(q[np.arange(n), labels], 1e-15)).mean()
    def sensitivity_at_90_specificity(c):
        false_alarms, found, _ = m.roc_curve(labels == c, q[:, c], drop_intermediate=False)
        return found[false_alarms <= 0.1 + 1e-9].max()
    reliability, ece = calibration(labels, q, predicted)
    return dict(name=name, classes=classes, labels=labels.tolist(), probabilities=q.tolist(),
                accuracy=m.accuracy_score(labels, predicted), precision=m.precision_score(labels, predicted, **how),
                recall=m.recall_score(labels, predicted, **how), f1=m.f1_score(labels, predicted, **how),
                auroc=float(np.mean([m.roc_auc_score(labels == c, q[:, c]) for c in each])), loss=float(loss),
                specificity=float(np.mean([specificity(c) for c in each])),
                sensitivity_at_90_specificity=float(np.mean([sensitivity_at_90_specificity(c) for c in each])),
                confusion=confusion.tolist(),
                brier=brier(labels, q, classes), ece=ece, reliability=reliability)

cases = [case("two classes", 2, 60, 1), case("four classes", 4, 80, 2), case("few", 2, 7, 3)]
out = pathlib.Path(__file__).parents[2] / "crates/nephros-train/src/evaluate/golden/metrics.json"
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(cases) + "\n")
