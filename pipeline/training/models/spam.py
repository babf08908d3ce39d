"""Spam filter for short messages: a linear classifier over hashed n-grams, computed entirely in the graph.

A message becomes two bags of features, each scaled to length 1 as in TF-IDF:

    word bag         words and punctuation marks, pairs of them, the message's length and its number of digits
    character bag    n-grams of 3 to 5 characters of each piece between spaces, including its borders

Hashing replaces a vocabulary: there is no table to initialize, and only weights to deploy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf
from tensorflow.compat import v1

from pipeline.data.readers import Examples, read_messages
from pipeline.signature import Decision, Signature, TensorSpec

BUCKETS = 2**17  # per bag; 2**18 was no better on the SMS Spam Collection
LEARNING_RATE = 1.5  # large, because the bags have length 1 and few batches touch the same weight
FULL_BATCH = 64
SLOPE = 4.0  # log-odds per unit of margin; on the SMS Spam Collection 4 and 5 were better calibrated than 2 and 3


class Spam:
    """Computes the probability that a message is spam, independently of the other messages of a batch."""

    signature = Signature(
        inputs=(TensorSpec("text", "string", (None,)),),
        outputs=(TensorSpec("probability", "float32", (None,)),),
        decision=Decision("probability", threshold=0.5, labels=("ham", "spam")),
    )
    data = "spam.tsv"

    def forward(self, inputs: Mapping[str, tf.Tensor], training: bool) -> Mapping[str, tf.Tensor]:
        """Builds the graph.

        Args:
            inputs: `text` string [batch], the bytes of each message; invalid UTF-8 is read as U+FFFD.

        Returns:
            `probability` float32 [batch]; and for the loss `margin` float32 [batch], above 0 for spam.
        """
        text = _fold(inputs["text"])
        batch = tf.size(text)
        bias = v1.get_variable("bias", [], tf.float32, v1.zeros_initializer())
        words = _weigh("words", *_word_features(text), batch, training)
        characters = _weigh("characters", *_character_features(text), batch, training)
        margin = words + characters + bias
        # The last bits of TensorFlow's sigmoid depend on the batch size. In float64 the cast drops them, so that
        # the output is the same for any batch size.
        probability = tf.cast(tf.sigmoid(tf.cast(SLOPE * margin, tf.float64)), tf.float32)
        return {"probability": probability, "margin": margin}

    def loss(self, outputs: Mapping[str, tf.Tensor], labels: tf.Tensor) -> tf.Tensor:
        """Modified Huber loss: a squared hinge that grows linearly beyond margin -1.

        It was better than the logistic loss on the SMS Spam Collection. Without the linear part, contradictory
        labels of equal texts make steps of this size diverge.

        Args:
            labels: int64 [batch], 0 ham, 1 spam.
        """
        signs = 2.0 * tf.cast(labels, tf.float32) - 1.0
        shortfall = tf.nn.relu(1.0 - signs * outputs["margin"])  # [batch]
        bounded = tf.minimum(shortfall, 2.0)
        # The last batch of an epoch may have one row, which must not move the weights as much as a full batch.
        rows = tf.cast(tf.maximum(tf.size(labels), FULL_BATCH), tf.float32)
        return tf.reduce_sum(bounded * (2.0 * shortfall - bounded)) / rows

    def optimizer(self) -> v1.train.Optimizer:
        """Returns plain gradient descent: it updates only the weights of the batch, and needs no slots."""
        return v1.train.GradientDescentOptimizer(LEARNING_RATE)

    def examples(self, path: Path) -> Examples:
        """Reads labelled messages; see `data.readers.read_messages`."""
        return read_messages(path)


def _fold(text: tf.Tensor) -> tf.Tensor:
    """Converts to lower case, and digits to 0, so that new phone numbers and prices look like known ones. [batch]"""
    # Control characters are removed first: lower-casing stops at a NUL byte, which could hide the text after it.
    visible = tf.strings.regex_replace(text, r"\pC", " ")
    return tf.strings.regex_replace(tf.strings.lower(visible, encoding="utf-8"), r"\pN", "0")


def _word_features(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the word bag: rows int64 [features] and names string [features]."""
    words = tf.strings.split(tf.strings.regex_replace(text, r"([^\pL\pM\pN_\s])", r" \1 "))
    grams = tf.strings.ngrams(words, [1, 2], separator=" ")
    length = tf.strings.length(text, unit="UTF8_CHAR")
    digits = length - tf.strings.length(tf.strings.regex_replace(text, "0", ""), unit="UTF8_CHAR")
    # In a message, `#` is always a word of its own, so no message can contain these names.
    shapes = [
        tf.strings.join(["#length", tf.strings.as_string(tf.minimum(length // 20, 8))]),
        tf.strings.join(["#digits", tf.strings.as_string(tf.minimum(digits, 12))]),
    ]
    row = tf.range(tf.size(text, out_type=tf.int64))
    return tf.concat([_rows(grams), row, row], 0), tf.concat([grams.values, *shapes], 0)


def _character_features(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the character bag: rows int64 [features] and names string [features]."""
    pieces = tf.strings.split(text)
    characters = tf.strings.unicode_split(tf.strings.join([" ", pieces.values, " "]), "UTF-8")
    grams = tf.strings.ngrams(characters, [3, 4, 5], separator="")
    return tf.gather(_rows(pieces), _rows(grams)), grams.values


def _rows(ragged: tf.RaggedTensor) -> tf.Tensor:
    """Returns the row of each value, int64 [values]."""
    # Not `value_rowids`: it tiles a matrix [rows, longest row], which is gigabytes if a batch has one long text.
    values = tf.range(tf.size(ragged.values, out_type=tf.int64))
    return tf.searchsorted(ragged.row_splits, values, side="right", out_type=tf.int64) - 1


def _weigh(name: str, rows: tf.Tensor, features: tf.Tensor, batch: tf.Tensor, training: bool) -> tf.Tensor:
    """Returns the sum of a bag's weights, divided by the square root of its number of features, float32 [batch]."""
    table = v1.get_variable(name, [BUCKETS], tf.float32, v1.zeros_initializer())
    hashed = tf.strings.to_hash_bucket_fast(features, BUCKETS)
    present, _ = tf.unique(rows * BUCKETS + hashed)  # repeated features of a message count once
    row, bucket = present // BUCKETS, present % BUCKETS
    # Each bucket is looked up once per batch: in large batches several threads would add the updates of a
    # repeated bucket in any order, and two trainings would differ in their last bits.
    buckets, index = tf.unique(bucket)
    weights = tf.gather(tf.gather(table, buckets), index)
    # A feature that training never saw has weight 0 and does not count, as if it were missing in a vocabulary.
    counted = tf.ones_like(weights) if training else tf.cast(tf.not_equal(weights, 0.0), tf.float32)
    size = tf.math.unsorted_segment_sum(counted, row, batch)
    # Not sum / sqrt(max(size, 1)): TensorFlow turns it into sum * rsqrt, whose last bits depend on the batch size.
    return tf.math.unsorted_segment_sum(weights, row, batch) / tf.maximum(tf.sqrt(size), 1.0)
