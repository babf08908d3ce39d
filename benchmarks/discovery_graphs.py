"""Graphs in the styles of tutorials and repositories, each with its true inputs and outputs.

The answers were written down before discovery was run on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from discovery_pieces import (
    Cell,
    Known,
    accuracy,
    batch_norm,
    conv,
    cross_entropy,
    dense,
    embed,
    floats,
    ids,
    known_to,
    layers_dropout,
    rows,
    train,
    v1,
    variable,
)

GRAPHS: list[Known] = []


def known(*outputs: str, **answers: Any) -> Any:
    return known_to(GRAPHS, *outputs, **answers)


# Classifiers.


@known("Predictions/Softmax", inputs=["input"], pins={"is_training": "false"}, beside=["Logits/BiasAdd"])
def slim_network_with_end_points() -> None:
    x, y = floats("input", 16, 16, 3), ids("labels")
    is_training = v1.placeholder(tf.bool, [], name="is_training")
    h = tf.nn.relu(batch_norm(conv(x, 8, "Conv2d_0", activation=None), is_training, "Conv2d_0/BatchNorm"))
    h = layers_dropout(tf.reduce_mean(h, [1, 2], name="global_pool"), is_training, "Dropout_1b")
    logits = dense(h, 5, "Logits")
    tf.nn.softmax(logits, name="Predictions/Softmax")
    for v in v1.trainable_variables():
        v1.losses.add_loss(0.00004 * tf.nn.l2_loss(v))
    v1.losses.sparse_softmax_cross_entropy(y, logits)
    total = v1.losses.get_total_loss()
    v1.summary.scalar("total_loss", total)
    train(total, v1.train.RMSPropOptimizer(0.01))


@known("logits/BiasAdd", beside=["ArgMax"], inputs=["shuffle_batch"])
def queue_of_examples_in_training() -> None:
    _, record = v1.TFRecordReader().read(v1.train.string_input_producer(["a.tfrecord"]))
    parsed = v1.parse_single_example(
        record, {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    )
    image = tf.cast(tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), [400]), tf.float32) / 255.0
    x, y = v1.train.shuffle_batch([image, parsed["label"]], 32, 200, 100)
    logits = dense(dense(x, 16, "hidden", tf.nn.relu), 4, "logits")
    loss = cross_entropy(y, logits)
    accuracy(logits, y)
    train(loss, v1.train.GradientDescentOptimizer(0.1))


@known("probabilities", beside=["classes"], inputs=["IteratorGetNext"])
def estimator_in_training_with_idle_predictions() -> None:
    x, y = rows()
    logits = dense(dense(x, 8, "dense", tf.nn.relu), 3, "dense_1")
    tf.argmax(logits, 1, name="classes")
    tf.nn.softmax(logits, name="probabilities")
    loss = v1.losses.sparse_softmax_cross_entropy(y, logits)
    v1.summary.scalar("loss", loss)
    train(loss, global_step=v1.train.get_or_create_global_step())


@known("softmax_tensor", beside=["ArgMax"], pins={"keep_prob": "1"})
def deep_mnist_with_summaries() -> None:
    x, y_ = floats("x", 784), floats("y_", 10)
    keep_prob = v1.placeholder(tf.float32, name="keep_prob")
    h = conv(tf.reshape(x, [-1, 28, 28, 1]), 4, "conv1")
    h = dense(tf.reshape(h, [-1, 14 * 14 * 4]), 16, "fc1", tf.nn.relu)
    v1.summary.histogram("fc1/activations", h)
    logits = dense(v1.nn.dropout(h, keep_prob), 10, "fc2")
    tf.nn.softmax(logits, name="softmax_tensor")
    train(cross_entropy(y_, logits))
    right = tf.equal(tf.argmax(logits, 1), tf.argmax(y_, 1))
    v1.summary.scalar("accuracy", tf.reduce_mean(tf.cast(right, tf.float32)))
    v1.summary.merge_all()


@known("logits/BiasAdd", pins={"keep_prob": "1"})
def dropout_with_a_default() -> None:
    x, y = floats("x", 12), ids("labels")
    keep_prob = v1.placeholder_with_default(1.0, [], name="keep_prob")
    h = v1.nn.dropout(dense(x, 8, "hidden", tf.nn.relu), keep_prob)
    train(cross_entropy(y, dense(h, 3, "logits")))


@known("output", pins={"rate": "0"})
def dropout_by_rate() -> None:
    x, y = floats("x", 12), ids("labels")
    rate = v1.placeholder(tf.float32, [], name="rate")
    logits = dense(tf.nn.dropout(dense(x, 8, "hidden", tf.nn.relu), rate=rate), 3, "logits")
    tf.nn.softmax(logits, name="output")
    train(cross_entropy(y, logits))


@known("logits/BiasAdd", pins={"is_training": "false"})
def layers_dropout_and_batch_norm() -> None:
    x, y = floats("x", 8, 8, 3), ids("labels")
    is_training = v1.placeholder(tf.bool, name="is_training")
    h = tf.nn.relu(batch_norm(conv(x, 4, "conv", activation=None), is_training, "bn"))
    h = layers_dropout(tf.reshape(h, [-1, 4 * 4 * 4]), is_training)
    logits = dense(h, 3, "logits")
    train(cross_entropy(y, logits))
    accuracy(logits, y)


@known("logits/BiasAdd")
def batch_norm_with_a_python_bool() -> None:
    x, y = floats("x", 8, 8, 3), ids("labels")
    h = tf.nn.relu(batch_norm(conv(x, 4, "conv", activation=None), False, "bn"))
    logits = dense(tf.reshape(h, [-1, 4 * 4 * 4]), 3, "logits")
    accuracy(logits, y)
    v1.summary.scalar("loss", cross_entropy(y, logits))


@known("prediction", beside=["probability"])
def decision_that_nothing_takes() -> None:
    x, y = floats("x", 12), floats("y", 3)
    logits = dense(dense(x, 8, "hidden", tf.nn.relu), 3, "logits")
    tf.nn.softmax(logits, name="probability")
    tf.argmax(logits, 1, name="prediction")
    train(cross_entropy(y, logits))


@known("hypothesis", beside=["predicted"], inputs=["X"])
def logistic_regression_by_hand() -> None:
    x, y = floats("X", 3), floats("Y", 1)
    h = tf.sigmoid(tf.matmul(x, variable("weight", [3, 1])) + variable("bias", [1]), name="hypothesis")
    cost = -tf.reduce_mean(y * tf.math.log(h) + (1 - y) * tf.math.log(1 - h))
    train(cost, v1.train.GradientDescentOptimizer(0.01))
    predicted = tf.cast(h > 0.5, tf.float32, name="predicted")
    tf.reduce_mean(tf.cast(tf.equal(predicted, y), tf.float32), name="accuracy")


# Regression.


@known("price")
def metric_against_constant_labels() -> None:
    x = floats("x", 8)
    labels = tf.constant(np.linspace(1, 5, 40, dtype=np.float32), name="labels")
    price = tf.squeeze(dense(x, 1, "linear"), 1, name="price")
    loss = tf.reduce_mean(tf.square(price - labels))
    tf.abs((price - labels) / labels * 100.0, name="percent_off")
    train(loss)


@known("pred", inputs=["X"])
def linear_regression_with_cost() -> None:
    x, y = v1.placeholder("float", name="X"), v1.placeholder("float", name="Y")
    pred = tf.add(tf.multiply(x, v1.Variable(0.3, name="weight")), v1.Variable(0.1, name="bias"), name="pred")
    train(tf.reduce_sum(tf.pow(pred - y, 2)) / 34, v1.train.GradientDescentOptimizer(0.01))


@known("y_out", inputs=["x_in"])
def regression_with_named_errors() -> None:
    x, y = floats("x_in", 5), floats("y_in", 1)
    out = tf.identity(dense(dense(x, 8, "h", tf.nn.tanh), 1, "o"), name="y_out")
    error = tf.subtract(out, y, name="error")
    mse = tf.reduce_mean(tf.square(error), name="mse")
    tf.sqrt(mse, name="rmse")
    tf.reduce_mean(tf.abs(error), name="mae")
    tf.abs(error / y, name="relative_error")
    train(mse)


@known("score", inputs=["x", "user"])
def regression_of_ratings() -> None:
    x, user, stars = ids("x"), ids("user"), floats("stars")
    items = tf.nn.embedding_lookup(variable("items", [20, 4]), x)
    users = tf.nn.embedding_lookup(variable("users", [30, 4]), user)
    bias = tf.nn.embedding_lookup(variable("item_bias", [20], 0.0), x)
    score = tf.add(tf.reduce_sum(items * users, 1), bias, name="score")
    penalty = tf.nn.l2_loss(items) + tf.nn.l2_loss(users)
    train(tf.nn.l2_loss(score - stars) + 0.05 * penalty)


# Text and sequences.


@known("output/scores", beside=["output/predictions"], inputs=["input_x"], pins={"dropout_keep_prob": "1"})
def text_cnn_with_training() -> None:
    x, y = ids("input_x", 12), floats("input_y", 2)
    keep = v1.placeholder(tf.float32, name="dropout_keep_prob")
    h = tf.expand_dims(embed(x, 40, 8), -1)
    w = variable("filter", [3, 8, 1, 4])
    h = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(h, w, 1, "VALID")), [1, 10, 1, 1], 1, "VALID")
    h = v1.nn.dropout(tf.reshape(h, [-1, 4]), keep)
    with v1.name_scope("output"):
        scores = v1.nn.xw_plus_b(h, variable("W", [4, 2]), variable("b", [2], 0.1), name="scores")
        predictions = tf.argmax(scores, 1, name="predictions")
    loss = cross_entropy(y, scores)
    right = tf.equal(predictions, tf.argmax(y, 1))
    v1.summary.scalar("accuracy", tf.reduce_mean(tf.cast(right, "float")))
    optimizer = v1.train.AdamOptimizer(1e-3)
    for gradient, v in optimizer.compute_gradients(loss):
        if gradient is not None:
            v1.summary.histogram(f"{v.op.name}/grad", gradient)
    train(loss, optimizer)


@known("logits", beside=["probs"], inputs=["input_data"], pins={"keep_prob": "1"})
def lstm_language_model() -> None:
    x, y = (v1.placeholder(tf.int32, [4, 6], name=name) for name in ("input_data", "targets"))
    keep = v1.placeholder(tf.float32, [], name="keep_prob")
    h = v1.nn.dropout(embed(x, 30, 8), keep)
    h, _ = v1.nn.dynamic_rnn(Cell(), h, initial_state=Cell().zero_state(4, tf.float32))
    flat = dense(tf.reshape(h, [-1, 8]), 30, "softmax")
    logits = tf.reshape(flat, [4, 6, 30], name="logits")
    cost = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=y)) / 4
    variables = v1.trainable_variables()
    gradients, _ = tf.clip_by_global_norm(tf.gradients(cost, variables), 5.0)
    v1.train.GradientDescentOptimizer(1.0).apply_gradients(zip(gradients, variables, strict=True))


@known("probs", inputs=["input_data"], beside=["rnnlm/state", "rnnlm/state:1"])
def character_rnn_with_fed_state() -> None:
    x, y = ids("input_data", 5), ids("targets", 5)
    h, state = v1.nn.dynamic_rnn(Cell(), embed(x, 20, 8), dtype=tf.float32)
    logits = dense(tf.reshape(h, [-1, 8]), 20, "rnnlm")
    tf.nn.softmax(logits, name="probs")
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.reshape(y, [-1]), logits=logits)
    cost = tf.reduce_mean(loss)
    tf.identity(state[0], "rnnlm/state")
    v1.summary.scalar("train_loss", cost)
    train(cost)


@known("logits/BiasAdd", inputs=["tokens", "lengths"], pins={"keep_prob": "1"})
def recurrent_classifier_of_texts() -> None:
    x, lengths, y = ids("tokens", 7), ids("lengths"), ids("labels")
    keep = v1.placeholder(tf.float32, name="keep_prob")
    _, (_, last) = v1.nn.dynamic_rnn(Cell(), embed(x, 30, 8), sequence_length=lengths, dtype=tf.float32)
    logits = dense(v1.nn.dropout(last, keep), 3, "logits")
    train(cross_entropy(y, logits))
    accuracy(logits, y)


@known("decoded", inputs=["source"])
def sequence_to_sequence_with_a_loop() -> None:
    source = ids("source", 5)
    cell, table = Cell(name="encoder"), variable("out_table", [12, 8])
    _, state = v1.nn.dynamic_rnn(cell, embed(source, 12, 8), dtype=tf.float32)
    start = tf.zeros(tf.shape(source)[:1], tf.int32)
    outputs = tf.TensorArray(tf.int32, 6)

    def step(i: Any, word: Any, c: Any, h: Any, outputs: Any) -> Any:
        _, (c, h) = Cell(name="decoder")(tf.nn.embedding_lookup(table, word), (c, h))
        word = tf.argmax(dense(h, 12, "project"), 1, output_type=tf.int32)
        return i + 1, word, c, h, outputs.write(i, word)

    last = tf.while_loop(lambda i, *_: i < 6, step, [0, start, *state, outputs])[-1]
    tf.transpose(last.stack(), name="decoded")


@known("classes", inputs=["words"])
def strings_with_a_table() -> None:
    words = v1.placeholder(tf.string, [None], name="words")
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([0, 1], tf.int64)), 2)
    h = embed(table.lookup(words), 3, 4)
    best = tf.argmax(dense(h, 2, "out"), 1)
    names = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1], tf.int64), ["spam", "ham"]), "?"
    )
    tf.identity(names.lookup(best), "classes")


# Policies, autoencoders, GANs, pairs, heads.


@known("logits/BiasAdd", inputs=["states"], beside=["action"])
def policy_that_draws() -> None:
    states, actions, rewards = floats("states", 4), ids("actions"), floats("rewards")
    logits = dense(dense(states, 8, "h", tf.nn.relu), 2, "logits")
    tf.squeeze(v1.multinomial(logits, 1), 1, name="action")
    likely = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=actions, logits=logits)
    train(tf.reduce_mean(likely * rewards))


@known("logits", inputs=["obs"])
def policy_that_draws_without_training() -> None:
    logits = tf.identity(dense(dense(floats("obs", 4), 8, "h", tf.nn.tanh), 3, "pi"), "logits")
    v1.multinomial(logits, 1, name="draw")


@known("decoder/Sigmoid", inputs=["x"], beside=["encoder/Sigmoid"])
def autoencoder_of_images() -> None:
    x = floats("x", 32)
    code = dense(x, 8, "encoder", tf.nn.sigmoid)
    y = dense(code, 32, "decoder", tf.nn.sigmoid)
    train(tf.reduce_mean(tf.pow(x - y, 2)), v1.train.RMSPropOptimizer(0.01))


@known("mean/BiasAdd", inputs=["x"], beside=["log_variance/BiasAdd"])
def variational_autoencoder_that_draws() -> None:
    x = floats("x", 32)
    h = dense(x, 16, "encoder", tf.nn.relu)
    mean, spread = dense(h, 2, "mean"), dense(h, 2, "log_variance")
    z = mean + tf.exp(spread / 2) * tf.random.normal(tf.shape(mean))
    y = tf.sigmoid(dense(dense(z, 16, "decoder", tf.nn.relu), 32, "image"), name="reconstruction")
    same = tf.reduce_sum(x * tf.math.log(1e-10 + y) + (1 - x) * tf.math.log(1e-10 + 1 - y), 1)
    train(-tf.reduce_mean(same + 0.5 * tf.reduce_sum(1 + spread - tf.square(mean) - tf.exp(spread), 1)))


@known("generator/Tanh", inputs=["z"])
def generator_with_its_judge() -> None:
    x, z = floats("real", 16), floats("z", 4)
    fake = dense(dense(z, 8, "g_hidden", tf.nn.relu), 16, "generator", tf.tanh)
    real, made = (dense(dense(one, 8, "d_hidden", tf.nn.relu), 1, "d_out") for one in (x, fake))
    entropy = tf.nn.sigmoid_cross_entropy_with_logits
    d_loss = tf.reduce_mean(entropy(logits=real, labels=tf.ones_like(real)))
    d_loss += tf.reduce_mean(entropy(logits=made, labels=tf.zeros_like(made)))
    g_loss = tf.reduce_mean(entropy(logits=made, labels=tf.ones_like(made)))
    names = v1.trainable_variables()
    train(d_loss, var_list=[v for v in names if v.op.name.startswith("d_")])
    train(g_loss, var_list=[v for v in names if v.op.name.startswith("g")])


@known("distance", inputs=["left", "right"])
def siamese_with_contrastive_loss() -> None:
    left, right, y = floats("left", 8), floats("right", 8), floats("same")
    a, b = dense(left, 4, "twin"), dense(right, 4, "twin")
    d = tf.sqrt(tf.reduce_sum(tf.square(a - b), 1) + 1e-6, name="distance")
    train(tf.reduce_mean(y * tf.square(d) + (1 - y) * tf.square(tf.maximum(1.0 - d, 0.0))))


@known("age/BiasAdd", "gender/BiasAdd")
def heads_with_their_own_labels() -> None:
    x, age, gender = floats("x", 16), floats("age_label", 1), ids("gender_label")
    h = dense(x, 8, "trunk", tf.nn.relu)
    years, kind = dense(h, 1, "age"), dense(h, 2, "gender")
    train(tf.reduce_mean(tf.square(years - age)) + cross_entropy(gender, kind))


@known("probabilities", "value", inputs=["obs"])
def actor_critic_with_idle_probabilities() -> None:
    obs, action, target = floats("obs", 4), ids("action"), floats("target", 1)
    h = dense(obs, 8, "h", tf.nn.relu)
    logits = dense(h, 2, "actor")
    value = tf.identity(dense(h, 1, "critic"), "value")
    tf.nn.softmax(logits, name="probabilities")
    better = tf.stop_gradient(target - value)
    likely = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=action, logits=logits)
    train(tf.reduce_mean(likely * better[:, 0]) + tf.reduce_mean(tf.square(target - value)))


# Images, detection, the rest.


@known("boxes", "scores", "classes", inputs=["image"])
def detection_with_suppression() -> None:
    image = v1.placeholder(tf.float32, [1, 16, 16, 3], name="image")
    h = conv(image, 8, "backbone")
    boxes = tf.reshape(conv(h, 4, "box", activation=None), [-1, 4])
    scores = tf.sigmoid(tf.reshape(conv(h, 3, "class", activation=None), [-1, 3]))
    best = tf.reduce_max(scores, 1)
    kept = tf.image.non_max_suppression(boxes, best, 10)
    tf.gather(boxes, kept, name="boxes")
    tf.gather(best, kept, name="scores")
    tf.gather(tf.argmax(scores, 1), kept, name="classes")


@known("final_result", inputs=["jpeg"])
def image_that_is_decoded_first() -> None:
    content = v1.placeholder(tf.string, [], name="jpeg")
    image = tf.cast(tf.image.decode_jpeg(content, 3), tf.float32)
    image = v1.image.resize_bilinear(tf.expand_dims(image, 0), [16, 16]) / 127.5 - 1.0
    h = tf.reduce_mean(conv(image, 4, "conv"), [1, 2])
    y = v1.placeholder(tf.int64, [None], name="ground_truth")
    logits = dense(h, 3, "final")
    tf.nn.softmax(logits, name="final_result")
    train(cross_entropy(y, logits))


@known("logits/BiasAdd")
def moving_averages_beside_the_variables() -> None:
    x, y = floats("x", 8), ids("labels")
    logits = dense(dense(x, 8, "h", tf.nn.relu), 3, "logits")
    step = v1.train.get_or_create_global_step()
    applied = train(cross_entropy(y, logits), v1.train.GradientDescentOptimizer(0.1), global_step=step)
    with tf.control_dependencies([applied]):
        v1.train.ExponentialMovingAverage(0.99, step).apply(v1.trainable_variables())


@known("out/BiasAdd")
def control_dependencies_everywhere() -> None:
    x, y = floats("x", 8), floats("y", 2)
    step = v1.train.get_or_create_global_step()
    checks = [v1.assert_greater_equal(tf.shape(x)[0], 1), v1.assert_equal(tf.shape(x)[0], tf.shape(y)[0])]
    with tf.control_dependencies(checks):
        h = dense(tf.identity(x), 8, "h", tf.nn.relu)
    with tf.control_dependencies([v1.assert_non_negative(h)]):
        out = dense(h, 2, "out")
    loss = tf.reduce_mean(tf.square(out - y))
    with tf.control_dependencies([loss]):
        counted = v1.assign_add(step, 1)
    with tf.control_dependencies([counted]):
        train(loss)


@known("mask", inputs=["image"], beside=["logits/BiasAdd"])
def segments_with_a_mask() -> None:
    image, annotation = floats("image", 16, 16, 3), ids("annotation", 16, 16, 1)
    h = conv(image, 8, "conv")
    up = v1.image.resize_bilinear(h, [16, 16])
    logits = conv(up, 3, "logits", 1, None)
    tf.expand_dims(tf.argmax(logits, 3), 3, name="mask")
    train(cross_entropy(tf.squeeze(annotation, 3), logits))


@known("tower_0/logits/BiasAdd", inputs=["tower_0/x"])
def towers_for_two_devices() -> None:
    for number in range(2):
        with v1.name_scope(f"tower_{number}"):
            x, y = floats("x", 6), ids("y")
            loss = cross_entropy(y, dense(x, 3, "logits"))
        train(loss, v1.train.GradientDescentOptimizer(0.1))


@known("main/BiasAdd", beside=["auxiliary/BiasAdd"])
def auxiliary_head() -> None:
    x, y = floats("x", 16), ids("labels")
    h = dense(x, 16, "trunk", tf.nn.relu)
    auxiliary = dense(h, 5, "auxiliary")
    main = dense(dense(h, 16, "more", tf.nn.relu), 5, "main")
    train(cross_entropy(y, main) + 0.3 * cross_entropy(y, auxiliary))
    accuracy(main, y)


@known("q_values/BiasAdd", inputs=["s"])
def q_learner_with_a_target_network() -> None:
    s, later, action, reward = floats("s", 4), floats("s_next", 4), ids("a"), floats("r")
    now, then = dense(s, 2, "q_values"), dense(later, 2, "q_target")
    target = tf.stop_gradient(reward + 0.9 * tf.reduce_max(then, 1))
    train(tf.reduce_mean(tf.square(tf.reduce_sum(now * tf.one_hot(action, 2), 1) - target)))
    for a, b in zip(v1.trainable_variables()[2:], v1.trainable_variables()[:2], strict=True):
        v1.assign(a, b)


@known("StatefulPartitionedCall", inputs=["x"], is_v2=True)
def function_of_tensorflow_2() -> None:
    w, b = variable("w", [6, 3]), variable("b", [3], 0.0)

    @tf.function(autograph=False)
    def serve(x: Any, w: Any, b: Any) -> Any:
        return tf.nn.softmax(tf.matmul(x, w) + b)

    tf.identity(serve(floats("x", 6), w, b), "StatefulPartitionedCall")


@known("dense_2/Softmax", inputs=["dense_input"], is_v2=True)
def keras_model_of_tensorflow_1() -> None:
    x = floats("dense_input", 6)
    target = v1.placeholder(tf.float32, [None, None], name="dense_2_target")
    weights = v1.placeholder_with_default(tf.ones([1]), [None], name="dense_2_sample_weights")
    y = dense(dense(x, 8, "dense", tf.nn.relu), 3, "dense_2", tf.nn.softmax)
    with v1.name_scope("loss"):
        norm = y / tf.reduce_sum(y, -1, keepdims=True)
        clipped = tf.clip_by_value(norm, 1e-7, 1 - 1e-7)
        losses = -tf.reduce_sum(target * tf.math.log(clipped), -1) * weights
        loss = tf.reduce_sum(losses) / tf.cast(tf.size(losses), tf.float32)
    with v1.name_scope("metrics"):
        accuracy(y, target, "acc")
    train(loss)


@known("embedding", inputs=["anchor"])
def triplets_of_faces() -> None:
    a, p, n = (
        tf.nn.l2_normalize(dense(floats(name, 16), 4, "face"), 1, name="embedding" if name == "anchor" else None)
        for name in ("anchor", "positive", "negative")
    )
    apart = tf.reduce_sum(tf.square(a - p), 1) - tf.reduce_sum(tf.square(a - n), 1) + 0.2
    train(tf.reduce_mean(tf.maximum(apart, 0.0)))


@known("normalized", inputs=[])
def word_vectors() -> None:
    center, context = ids("center"), ids("context", 1)
    table = variable("embedding", [20, 4])
    loss = tf.nn.nce_loss(
        variable("nce_w", [20, 4]), variable("nce_b", [20], 0.0), context, tf.nn.embedding_lookup(table, center), 3, 20
    )
    train(tf.reduce_mean(loss))
    norm = tf.sqrt(tf.reduce_sum(tf.square(table), 1, keepdims=True))
    tf.divide(table, norm, name="normalized")
