"""Checks, with TensorFlow alone, that the artifacts of a run hold what they promise.

python .ci/check_artifacts.py output/sms
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

v1 = tf.compat.v1


def main(home: Path) -> None:
    signature = json.loads((home / "frozen/signature.json").read_text())
    verdict = json.loads((home / "validation/verdict.json").read_text())
    results = pd.read_csv(home / "validation/results.csv")
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert (results["verdict"] == "passed").all()
    assert (results["check"] == "equal").sum() == verdict["rows"]["validation"] * len(signature["outputs"])
    assert {path.name for path in (home / "report").iterdir()} >= {"report.html", "summary.md", "junit.xml"}

    messages = np.array([b"WINNER!! Claim your free prize now, call 0700 900 123", b"see you at lunch?"], dtype=object)
    answers = []
    for session in (_from_checkpoint(home / "checkpoint/model.ckpt"), _from_pb(home / "frozen/model.pb")):
        answers.append(session.run("probability:0", {"text:0": messages}))
    assert np.array_equal(*answers), answers
    assert answers[0][0] > 0.5 > answers[0][1], answers
    print(f"the checkpoint and the .pb both give {answers[0].tolist()} for {messages.tolist()}")


def _from_checkpoint(prefix: Path) -> v1.Session:
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, str(prefix))
    return session


def _from_pb(path: Path) -> v1.Session:
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        tf.import_graph_def(v1.GraphDef.FromString(path.read_bytes()), name="")
    return session


main(Path(sys.argv[1]))
