#!/usr/bin/env python3
"""Small PyTorch networks trained from scratch, on the patients and the folds of a `nephros crossval`.

    python3 -m venv target/peers-torch
    target/peers-torch/bin/pip install numpy pillow scikit-learn torch
    target/peers-torch/bin/python scripts/peers/from_scratch.py COHORT PREDICTIONS [--recipe NAME] [--seed N]

COHORT is the folder that `nephros ingest` read (scripts/real-cohort), PREDICTIONS the
`artifacts/crossval/predictions.csv` that nephros wrote for it: an image is left out here in the fold in which
it was left out there, so that both are asked about the same patients, having seen the same others. Prints one
JSON line a run: the AUROC of all images pooled over the folds, its mean over the folds, and the sensitivity at a
specificity of 90 %.

The recipes are what a PyTorch user would write first: the whole slice in grey, AdamW with a cosine, images drawn at
random with flips, turns, zoom and contrast, the last epoch kept.
"""

import argparse
import csv
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn
from torch.nn import functional


def block(inputs, outputs):
    """3x3 convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """A basic block of a ResNet that halves the map."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images):
        return functional.relu(self.second(self.first(images)) + self.shortcut(images))


def pooled(size):
    """Convolutions and pooling, then the mean of the last map."""
    widths = [1, 24, 48, 96, 192]
    stages = [layer for pair in zip(widths, widths[1:]) for layer in (block(*pair), nn.MaxPool2d(2))]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(192, 1))


def dense(size):
    """Convolutions and pooling, then a hidden layer over the whole last map."""
    widths = [1, 16, 32, 64, 64]
    stages = [layer for pair in zip(widths, widths[1:]) for layer in (block(*pair), nn.MaxPool2d(2))]
    flat = 64 * (size // 16) ** 2
    hidden = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(flat, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 1)]
    return nn.Sequential(*stages, *hidden)


def residual(size):
    """A ResNet of ten layers."""
    widths = [16, 32, 64, 128, 192]
    stages = [Residual(*pair) for pair in zip(widths, widths[1:])]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(192, 1)]
    return nn.Sequential(block(1, 16), *stages, *head)


# Network, pixels, epochs, contrast and brightness changed by up to this share.
RECIPES = {
    "pooled": (pooled, 128, 20, 0.2),
    "dense": (dense, 128, 15, 0.1),
    "residual": (residual, 160, 30, 0.3),
}


def read(cohort, predictions, size):
    """Images [count, 1, size, size] in 0 to 1, labels, folds."""
    with open(predictions, newline="") as file:
        rows = list(csv.DictReader(file))
    pictures = []
    for row in rows:
        with Image.open(cohort / row["path"]) as picture:
            grey = picture.convert("L").resize((size, size), Image.BILINEAR)
        pictures.append(np.asarray(grey, np.float32) / 255)
    labels = np.array([row["class"] == "Tumor" for row in rows])
    folds = np.array([int(row["fold"]) for row in rows])
    return torch.from_numpy(np.stack(pictures)[:, None]), labels, folds


def change(images, contrast, generator):
    """Flips, turns up to 15 degrees, zooms and shifts by up to a tenth, contrast and brightness."""
    count = len(images)

    def uniform(low, high):
        return torch.rand(count, generator=generator) * (high - low) + low

    angle, zoom = uniform(-math.pi / 12, math.pi / 12), uniform(0.9, 1.1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    rows = [angle.cos() * zoom * flip, -angle.sin() * zoom, uniform(-0.2, 0.2)]
    rows += [angle.sin() * zoom * flip, angle.cos() * zoom, uniform(-0.2, 0.2)]
    places = functional.affine_grid(torch.stack(rows, 1).view(count, 2, 3), images.shape, align_corners=False)
    moved = functional.grid_sample(images, places, align_corners=False)
    factor, offset = uniform(1 - contrast, 1 + contrast), uniform(-contrast / 2, contrast / 2)
    return (moved * factor.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)).clamp(0, 1)


def train(images, labels, recipe, seed, bfloat16):
    """The network after the last epoch."""
    build, size, epochs, contrast = RECIPES[recipe]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = build(size).to(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels.astype(np.float32))
    # Both classes count alike.
    weight = torch.tensor(float((~labels).sum() / labels.sum()))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-3)
    steps = epochs * math.ceil(len(images) / 32)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(32):
            changed = change(images[batch], contrast, generator) - 0.5
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                logits = network(changed.to(memory_format=torch.channels_last))[:, 0].float()
            loss = functional.binary_cross_entropy_with_logits(logits, targets[batch], pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cohort", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--recipe", choices=RECIPES, default="pooled")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true", help="train in bfloat16, which is faster where the CPU knows it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    began = time.time()
    images, labels, folds = read(args.cohort, args.predictions, RECIPES[args.recipe][1])
    scores, of_folds = np.zeros(len(labels)), []
    for fold in sorted(set(folds)):
        inside = folds == fold
        network = train(images[~inside], labels[~inside], args.recipe, args.seed, args.bfloat16)
        with torch.no_grad():
            scores[inside] = torch.cat([network(part - 0.5)[:, 0] for part in images[inside].split(64)]).numpy()
        # A fold of one class has no AUROC, as in nephros.
        if len(set(labels[inside])) == 2:
            of_folds.append(round(float(roc_auc_score(labels[inside], scores[inside])), 3))
    false_alarms, found, _ = roc_curve(labels, scores)
    figures = {
        "recipe": args.recipe,
        "seed": args.seed,
        "auroc": round(float(roc_auc_score(labels, scores)), 3),
        "auroc_folds_mean": round(float(np.mean(of_folds)), 3),
        "auroc_folds": of_folds,
        "sensitivity_at_90_specificity": round(float(found[false_alarms <= 0.1].max()), 3),
        "seconds": round(time.time() - began),
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
