"""The spam model: outputs for unusual texts, learning, and reproducible training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.data.readers import Examples, read_messages, split
from pipeline.training.models.spam import Spam

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]

SAMPLE = Path(__file__).resolve().parents[3] / "data" / "spam.tsv"
THREADS = v1.ConfigProto(intra_op_parallelism_threads=2, inter_op_parallelism_threads=2)


class Trained:
    """Trains the model for a few steps on the sample; keeps its losses and weights."""

    def __init__(self, steps: int, batch_size: int = 64) -> None:
        examples = read_messages(SAMPLE)
        assert examples.labels is not None
        model, self.graph = Spam(), tf.Graph()
        self.losses: list[float] = []
        with self.graph.as_default():
            v1.set_random_seed(7)
            self._text, labels = v1.placeholder(tf.string, [None], "text"), v1.placeholder(tf.int64, [None])
            loss = model.loss(model.forward({"text": self._text}, training=True), labels)
            train_op = model.optimizer().minimize(loss, global_step=v1.train.create_global_step())
            with v1.variable_scope(v1.get_variable_scope(), reuse=True):
                self._probability = model.forward({"text": self._text}, training=False)["probability"]
            self._session = v1.Session(config=THREADS)
            self._session.run(v1.global_variables_initializer())
            order = np.random.default_rng(7)
            for _ in range(steps):
                rows = order.integers(0, len(examples), batch_size)
                feed = {self._text: examples.inputs["text"][rows], labels: examples.labels[rows]}
                self.losses.append(float(self._session.run([loss, train_op], feed)[0]))
            self.weights = {v.op.name: self._session.run(v) for v in v1.trainable_variables()}

    def answer(self, texts: Sequence[bytes]) -> Array:
        """Computes probabilities, float32 [texts]."""
        return np.asarray(self._session.run(self._probability, {self._text: np.array(texts, object)}))


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained(steps=60)


ODD_TEXTS = {
    "nothing": b"",
    "white space": b" \t\n  \r\n",
    "one character": b"x",
    "100,000 characters": b"free prize " * 9091,
    "100,000 characters in one word": b"a" * 100_000,
    "no ASCII": "Привет, où es-tu? 今晚 ß".encode(),
    "emojis": "😂😂 👩‍👩‍👧 🚀".encode(),
    "invalid UTF-8": b"\xff\xfe free \xc3( \x80 \xf0\x9f",
    "NUL bytes": b"\0\0call\0now\0",
    "marks": b"\"'\\#$%()[]{}*+?^|",
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_an_odd_text_gets_a_probability(trained: Trained, text: bytes) -> None:
    (probability,) = trained.answer([text])
    assert 0 <= probability <= 1


def test_a_text_that_says_nothing_is_no_spam(trained: Trained) -> None:
    assert (trained.answer([b"", b"  ", b"\0", b"."]) < 0.5).all()


def test_an_empty_batch_gives_no_rows(trained: Trained) -> None:
    answers = trained.answer([])
    assert answers.shape == (0,)
    assert answers.dtype == np.float32


def test_an_answer_does_not_depend_on_the_other_rows(trained: Trained) -> None:
    texts = [*read_messages(SAMPLE).inputs["text"][:60], *ODD_TEXTS.values()]
    together = trained.answer(texts).tolist()
    assert len(set(together)) > 50
    assert together == [trained.answer([text]).item() for text in texts]
    assert together == trained.answer(texts[::-1]).tolist()[::-1]


def test_upper_and_lower_case_are_equal(trained: Trained) -> None:
    text = "Claim your FREE prize at the Café, Élodie! ÄÖÜ ДОМ"
    lower, upper, other = trained.answer([text.lower().encode(), text.upper().encode(), b"Claim your free tea"])
    assert lower == upper != other


def test_other_digits_of_the_same_length_are_equal(trained: Trained) -> None:
    first, second, longer = trained.answer([b"Call 0700 900 111", b"Call 0813 245 689", b"Call 0700 900 11111"])
    assert first == second != longer


def test_text_behind_a_nul_byte_is_read(trained: Trained) -> None:
    ham = b"see you at lunch"
    plain, hidden = trained.answer([ham, ham + b"\0CLAIM your FREE prize, call 0700 900 111 now"])
    assert hidden > plain


def test_a_word_said_twice_counts_once(trained: Trained) -> None:
    thrice, oftener = trained.answer([b"call call call", b"call call call call"])  # both below 20 characters
    assert thrice == oftener


def test_training_lowers_the_loss_and_changes_the_answers(trained: Trained) -> None:
    assert np.mean(trained.losses[-10:]) < 0.5 * np.mean(trained.losses[:3])
    prize, lunch = [b"WIN a FREE prize! Call 0700 900 555 to claim", b"shall we have lunch at mine tomorrow?"]
    assert Trained(steps=0).answer([prize, lunch]).tolist() == [0.5, 0.5]
    assert trained.answer([prize])[0] > 0.5 > trained.answer([lunch])[0]


@pytest.mark.parametrize(("steps", "batch_size"), [(60, 64), (3, 2000)])  # only large updates are split over threads
def test_two_trainings_give_the_same_bits(steps: int, batch_size: int) -> None:
    first, second = Trained(steps, batch_size), Trained(steps, batch_size)
    assert first.losses == second.losses
    assert first.weights.keys() == second.weights.keys() == {"bias", "words", "characters"}
    for name, weights in first.weights.items():
        assert weights.any(), name
        assert weights.tobytes() == second.weights[name].tobytes(), name


def test_contradictory_labels_do_not_diverge() -> None:
    model = Spam()
    with tf.Graph().as_default():
        text = tf.constant([b"the same words"] * 8)
        labels = tf.constant([0, 1] * 4, tf.int64)
        loss = model.loss(model.forward({"text": tf.repeat(text, 8)}, training=True), tf.repeat(labels, 8))
        train_op = model.optimizer().minimize(loss)
        with v1.Session(config=THREADS) as session:
            session.run(v1.global_variables_initializer())
            losses = [session.run([loss, train_op])[0] for _ in range(50)]
    assert max(losses) < 50


def test_the_frozen_graph_answers_without_state(trained: Trained, tmp_path: Path) -> None:
    model = Spam()
    with tf.Graph().as_default() as graph, v1.Session(config=THREADS) as session:
        node = model.forward({"text": v1.placeholder(tf.string, [None], "text")}, training=False)["probability"].op.name
        for variable in v1.trainable_variables():
            variable.load(trained.weights[variable.op.name], session)
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [node])
    texts = [*ODD_TEXTS.values(), b"WIN a FREE prize"]
    with tf.Graph().as_default() as graph, v1.Session(config=THREADS) as session:
        v1.import_graph_def(frozen, name="")
        assert [op.type for op in graph.get_operations() if op.op_def.is_stateful and op.type != "Placeholder"] == []
        answers = session.run(f"{node}:0", {"text:0": np.array(texts, object)})
    assert answers.tobytes() == trained.answer(texts).tobytes()


def test_split_keeps_duplicates_together() -> None:
    examples = read_messages(SAMPLE)
    assert len(_keys(examples)) < len(examples), "the sample holds duplicates that differ in case and spaces"
    for seed in range(5):
        training, validation = split(examples, seed, 0.2)
        assert not _keys(training) & _keys(validation)


def _keys(examples: Examples) -> set[str]:
    assert examples.keys is not None
    return set(examples.keys)
