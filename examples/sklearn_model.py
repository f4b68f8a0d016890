"""A scikit-learn model in every worker: trained here once, kept in a file, loaded once by each worker.

    python examples/sklearn_model.py digits.model said.jsonl

The digits are scikit-learn's own: 1,797 pictures of handwritten ones, 8 by 8 (UCI). The model learns from the first
half and reads the second.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from taktline import batch, line, per_worker, read, write

HALF = 898


class Reader:
    """Reads pictures, many at once, with the model of a file."""

    def __init__(self, model):
        self.model = pickle.loads(Path(model).read_bytes())

    def __call__(self, pictures):
        sure = self.model.predict_proba(np.array([picture["pixels"] for picture in pictures]))
        return [
            {"digit": picture["digit"], "read": int(row.argmax()), "sure": round(float(row.max()), 3)}
            for picture, row in zip(pictures, sure, strict=True)
        ]


def train(digits, path):
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(digits.data[:HALF], digits.target[:HALF])
    Path(path).write_bytes(pickle.dumps(model))


def main(model, target):
    digits = load_digits()
    if not Path(model).exists():
        train(digits, model)
    pictures = [
        {"pixels": pixels.tolist(), "digit": int(digit)}
        for pixels, digit in zip(digits.data[HALF:], digits.target[HALF:], strict=True)
    ]
    reader = line(batch(per_worker(Reader, model), size=100), name="digits")
    print(reader.run(pictures, write(target)))
    right = sum(picture["read"] == picture["digit"] for picture in read(target))
    print(f"{right} of {len(pictures)} are read right")


if __name__ == "__main__":
    main(*sys.argv[1:])
