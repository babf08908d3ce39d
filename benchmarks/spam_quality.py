"""Compares the spam model with scikit-learn's linear classifiers on the same split of the same messages.

    python benchmarks/spam_quality.py --data path/to/SMSSpamCollection --seeds 7,8,9

Each peer is a TF-IDF with a LinearSVC, with scikit-learn's default settings. The spam model is trained by a
minimal loop: batches of seeded permutations, one step each.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  (the path and the environment come first)
import tensorflow as tf  # noqa: E402
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score  # noqa: E402
from sklearn.pipeline import make_pipeline, make_union  # noqa: E402
from sklearn.svm import LinearSVC  # noqa: E402

from pipeline.data.readers import Examples, read_messages, split  # noqa: E402
from pipeline.training.models.spam import Spam  # noqa: E402

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]

COLLECTION = ROOT.parent / "shared" / "data" / "sms_spam" / "SMSSpamCollection"
SAMPLE = ROOT / "data" / "spam.tsv"
WORDS, WITH_CHARACTERS, OURS = CLASSIFIERS = ("words, LinearSVC", "words+chars, LinearSVC", "spam model")
SCORES = {"precision": precision_score, "recall": recall_score, "F1": f1_score, "accuracy": accuracy_score}


def predict_with_svc(training: Examples, validation: Examples, has_characters: bool) -> Array:
    """Predicts labels int64 [validation rows] with TF-IDF and LinearSVC, with or without n-grams of characters."""
    bags = [TfidfVectorizer(ngram_range=(1, 2))]
    if has_characters:
        bags.append(TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)))
    classifier = make_pipeline(make_union(*bags), LinearSVC())
    classifier.fit(_texts(training), training.labels)
    return np.asarray(classifier.predict(_texts(validation)))


def predict_with_model(training: Examples, validation: Examples, args: argparse.Namespace, seed: int) -> Array:
    """Trains the spam model from its initial weights; predicts labels int64 [validation rows]."""
    assert training.labels is not None
    model = Spam()
    with tf.Graph().as_default():
        v1.set_random_seed(seed)
        text, labels = v1.placeholder(tf.string, [None]), v1.placeholder(tf.int64, [None])
        loss = model.loss(model.forward({"text": text}, training=True), labels)
        train_op = model.optimizer().minimize(loss, global_step=v1.train.create_global_step())
        with v1.variable_scope(v1.get_variable_scope(), reuse=True):
            probability = model.forward({"text": text}, training=False)["probability"]
        config = v1.ConfigProto(intra_op_parallelism_threads=2, inter_op_parallelism_threads=2)
        with v1.Session(config=config) as session:
            session.run(v1.global_variables_initializer())
            order = _row_order(len(training), args.batch_size, seed)
            for _ in range(args.steps):
                rows = next(order)
                session.run(train_op, {text: training.inputs["text"][rows], labels: training.labels[rows]})
            answers = session.run(probability, {text: validation.inputs["text"]})
    decision = model.signature.decision
    assert decision is not None
    return np.asarray(answers >= decision.threshold).astype(np.int64)


def predict(name: str, training: Examples, validation: Examples, args: argparse.Namespace, seed: int) -> Array:
    """Fits or trains one of the classifiers; predicts labels int64 [validation rows]."""
    if name == OURS:
        return predict_with_model(training, validation, args, seed)
    return predict_with_svc(training, validation, has_characters=name == WITH_CHARACTERS)


def _row_order(rows: int, batch_size: int, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    while True:
        shuffled = generator.permutation(rows)
        yield from (shuffled[start : start + batch_size] for start in range(0, rows, batch_size))


def _texts(examples: Examples) -> list[str]:
    return [text.decode() for text in examples.inputs["text"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=COLLECTION if COLLECTION.exists() else SAMPLE)
    parser.add_argument("--seeds", default="7,8,9", help="seeds of the split, comma-separated")
    parser.add_argument("--validation-share", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    examples = read_messages(args.data)
    print(f"{args.data.name}: {len(examples)} messages, {args.steps} steps of {args.batch_size}")
    print(f"{'seed':>4}  {'classifier':<24}" + "".join(f"{name:>10}" for name in SCORES) + f"{'seconds':>10}")
    f1: dict[str, list[float]] = {}
    for seed in map(int, args.seeds.split(",")):
        training, validation = split(examples, seed, args.validation_share)
        for name in CLASSIFIERS:
            started = time.perf_counter()
            predicted = predict(name, training, validation, args, seed)
            seconds = time.perf_counter() - started
            values = {score: float(of(validation.labels, predicted)) for score, of in SCORES.items()}
            f1.setdefault(name, []).append(values["F1"])
            numbers = "".join(f"{value:>10.4f}" for value in values.values())
            print(f"{seed:>4}  {name:<24}{numbers}{seconds:>10.1f}", flush=True)
    means = {name: float(np.mean(values)) for name, values in f1.items()}
    ours = means.pop(OURS)
    print(f"mean F1 of the spam model: {ours:.4f}")
    for name, mean in means.items():
        print(f"that is {ours / mean:.4f} of {name} ({mean:.4f})")


if __name__ == "__main__":
    main()
