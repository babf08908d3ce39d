"""Do what the chain does for `examples/fruit.py`, as a script written by hand: the peer of `chain.py`.

python benchmarks/bare_chain.py FOLDER

It imports TensorFlow once, trains, saves, freezes, restores both, compares them row by row, and writes a CSV file.
"""

import csv
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import tensorflow as tf
from tensorflow.compat import v1

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
STEPS, BATCH, EVALUATE, SAVE = 600, 64, 100, 200


def read(path):
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    features = np.array([[float(row[name]) for name in ("weight_g", "diameter_mm", "redness")] for row in table], "f")
    return features, np.array([int(row["fruit"]) for row in table])


def forward(features, training):
    hidden = tf.nn.relu(dense(features / tf.constant([100.0, 50.0, 1.0]), 16, "hidden"))
    if training:
        hidden = tf.nn.dropout(hidden, rate=0.1)
    return dense(hidden, 3, "logits")


def dense(x, units, name):
    with v1.variable_scope(name):
        kernel = v1.get_variable("kernel", [x.shape[-1], units])
        return x @ kernel + v1.get_variable("bias", [units], initializer=tf.zeros_initializer())


def train(features, labels, folder):
    order = np.random.default_rng(7).permutation(len(features))
    held, rest = order[: len(order) // 5], order[len(order) // 5 :]
    with tf.Graph().as_default():
        v1.set_random_seed(7)
        x, y = v1.placeholder(tf.float32, [None, 3], "features"), v1.placeholder(tf.int64, [None], "labels")
        logits = forward(x, training=True)
        with v1.variable_scope("", reuse=True):
            deployed = forward(x, training=False)
        tf.nn.softmax(deployed, name="probabilities")
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        tested = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, deployed))
        step = v1.train.AdamOptimizer(0.02).minimize(loss)
        saver = v1.train.Saver()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for number in range(1, STEPS + 1):
                rows = np.random.default_rng(number).choice(rest, BATCH)
                session.run(step, {x: features[rows], y: labels[rows]})
                if number % EVALUATE == 0:
                    print(number, session.run(tested, {x: features[held], y: labels[held]}))
                if number % SAVE == 0:
                    saver.save(session, str(folder / "model.ckpt"), number)
    return features[held]


def freeze(prefix, path):
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["probabilities"])
        path.write_bytes(frozen.SerializeToString())


def answers(rows, restore):
    with tf.Graph().as_default(), v1.Session() as session:
        restore(session)
        return session.run("probabilities:0", {"features:0": rows})


def import_frozen(path):
    definition = v1.GraphDef.FromString(path.read_bytes())
    tf.import_graph_def(definition, name="")


def main():
    folder = Path(sys.argv[1])
    rows = train(*read(EXAMPLES / "fruit.csv"), folder)
    prefix = str(folder / f"model.ckpt-{STEPS}")
    freeze(prefix, folder / "model.pb")
    theirs = answers(rows, lambda session: v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix))
    ours = answers(rows, lambda session: import_frozen(folder / "model.pb"))
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "reference", "candidate", "abs_diff"])
        for number, (left, right) in enumerate(zip(theirs, ours, strict=True)):
            worst = np.abs(left - right).argmax()
            writer.writerow([number, left[worst], right[worst], abs(left[worst] - right[worst])])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    main()
