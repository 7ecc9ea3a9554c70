#!/usr/bin/env python3
"""Golden ROC and precision-recall curves: python3 -m venv v && v/bin/pip install scikit-learn==1.5.2 && v/bin/python scripts/golden/curves.py

Writes crates/nephros-train/src/report/golden/curves.json: what scikit-learn draws for the labels and
probabilities of the metrics' golden file (scripts/golden/metrics.py), each class against the rest.
"""
import json, pathlib
import numpy as np
from sklearn import metrics as m

def threshold(value):
    return None if np.isinf(value) else float(value)

def curves(labels, q, c):
    truth, scores = (labels == c).astype(int), q[:, c]
    fpr, tpr, cuts = m.roc_curve(truth, scores, drop_intermediate=True)
    precision, recall, low = m.precision_recall_curve(truth, scores, drop_intermediate=True)
    # Laxest first there, strictest first here, beginning with the point that has no threshold.
    pr = [[None, recall[-1], precision[-1]]]
    pr += [[threshold(t), r, p] for t, r, p in zip(low[::-1], recall[-2::-1], precision[-2::-1])]
    return dict({"class": c}, auroc=m.roc_auc_score(truth, scores), average_precision=m.average_precision_score(truth, scores),
                roc=[[threshold(t), f, r] for t, f, r in zip(cuts, fpr, tpr)], precision_recall=pr)

source = pathlib.Path(__file__).parents[2] / "crates/nephros-train/src"
cases = []
for case in json.loads((source / "evaluate/golden/metrics.json").read_text()):
    labels, q = np.array(case["labels"]), np.array(case["probabilities"])
    classes = [1] if case["classes"] == 2 else range(case["classes"])
    cases.append(dict(name=case["name"], labels=case["labels"], probabilities=case["probabilities"],
                      curves=[curves(labels, q, c) for c in classes]))
out = source / "report/golden/curves.json"
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(cases) + "\n")
