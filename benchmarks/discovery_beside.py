"""Graphs in which something stands beside the trained output: side outputs, decoders, gradients, losses in loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from discovery_pieces import Cell, Known, conv, cross_entropy, dense, embed, floats, ids, known_to, train, v1, variable

BESIDE: list[Known] = []


def beside(*outputs: str, **answers: Any) -> Any:
    return known_to(BESIDE, *outputs, **answers)


def squared(a: Any, b: Any) -> Any:
    return tf.reduce_mean(tf.square(a - b))


# Outputs that only the loss takes, beside others that nothing takes.


def rendered(x: Any, name: str) -> tuple[Any, Any, Any]:
    """A ray's colour, depth and weights, as volume rendering sums them up."""
    at = tf.linspace(1.0, 2.0, 5)
    raw = tf.tensordot(x[:, None] * at[None, :, None], variable(name, [3, 4]), 1)
    weights = tf.nn.softmax(raw[..., 3])
    colour = tf.reduce_sum(weights[..., None] * tf.sigmoid(raw[..., :3]), 1)
    return colour, tf.reduce_sum(weights * at, 1), weights


@beside("rgb", "depth", "acc")
def colours_beside_depths() -> None:
    x, y = floats("x", 3), floats("y", 3)
    rgb, depth, weights = rendered(x, "fine")
    rgb = tf.identity(rgb, "rgb")
    tf.identity(depth, "depth")
    tf.reduce_sum(weights, 1, name="acc")
    train(squared(rgb, y))


@beside("rgb", "depth", "acc")
def colours_of_two_networks() -> None:
    x, y = floats("x", 3), floats("y", 3)
    coarse, _, weights = rendered(x, "coarse")
    rgb, depth, weights = rendered(x + tf.stop_gradient(weights[:, :3]), "fine")
    rgb = tf.identity(rgb, "rgb")
    tf.identity(depth, "depth")
    tf.reduce_sum(weights, 1, name="acc")
    train(squared(rgb, y) + squared(coarse, y))


@beside("rgb", "depth")
def colours_beside_sums_of_a_hidden_layer() -> None:
    x, y = floats("x", 3), floats("y", 3)
    h = dense(x, 3, "h", tf.tanh)
    rgb = tf.sigmoid(dense(h, 3, "last"), name="rgb")
    tf.reduce_sum(h * x, 1, name="depth")
    train(squared(rgb, y))


@beside("mean", "spread")
def mean_in_the_loss_beside_an_idle_spread() -> None:
    x, y = floats("x", 4), floats("y")
    raw = dense(dense(x, 8, "h", tf.nn.relu), 2, "last")
    mean = tf.add(raw[:, 0], 1.0, name="mean")
    tf.exp(raw[:, 1], name="spread")
    train(squared(mean, y))


@beside("probability", beside=["logits/BiasAdd"])
def probability_beside_flattened_logits() -> None:
    x, y = floats("x", 4), ids("y", 5)
    logits = dense(tf.reshape(x[:, None] * tf.ones([1, 5, 1]), [-1, 4]), 3, "logits")
    tf.nn.softmax(tf.reshape(logits, [-1, 5, 3]), name="probability")
    train(cross_entropy(tf.reshape(y, [-1]), logits))


@beside("caption", "attention")
def captions_beside_attention() -> None:
    x, y = floats("x", 6, 4), ids("y")
    weights = tf.nn.softmax(tf.squeeze(dense(tf.reshape(x, [-1, 4]), 6, "score")[:, :1], 1))
    weights = tf.identity(tf.reshape(weights, [-1, 6]), "attention_inner")
    tf.reshape(weights, [-1, 2, 3], name="attention")
    logits = tf.identity(dense(tf.reduce_sum(x * weights[..., None], 1), 7, "words"), "caption")
    train(cross_entropy(y, logits))


@beside("boxes", "classes", beside=["detections"])
def boxes_and_classes() -> None:
    x, boxes, classes = floats("x", 8, 8, 3), floats("gt_boxes", 16, 4), ids("gt_classes", 16)
    features = conv(x, 8, "features")
    box = tf.reshape(conv(features, 4, "box", 1, None), [-1, 16, 4], name="boxes")
    kind = tf.reshape(conv(features, 3, "class", 1, None), [-1, 16, 3], name="classes")
    train(squared(box, boxes) + cross_entropy(classes, kind))


# Decoders.


@beside("dense_decoded", beside=["logits", "CTCGreedyDecoder:3"], inputs=["images", "seq_len"])
def lines_of_text() -> None:
    x, lengths = floats("images", None, 6), ids("seq_len")
    y = v1.sparse_placeholder(tf.int32, name="targets")
    h, _ = v1.nn.dynamic_rnn(Cell(), x, dtype=tf.float32)
    logits = tf.tensordot(h, variable("out", [8, 5]), 1)
    logits = tf.transpose(logits, [1, 0, 2], name="logits")
    loss = tf.reduce_mean(v1.nn.ctc_loss(y, logits, lengths))
    decoded, _ = tf.nn.ctc_greedy_decoder(logits, lengths)
    v1.sparse_tensor_to_dense(decoded[0], default_value=-1, name="dense_decoded")
    v1.summary.scalar("ler", tf.reduce_mean(tf.edit_distance(tf.cast(decoded[0], tf.int32), y)))
    train(loss)


@beside(
    "CTCBeamSearchDecoder:1",
    beside=["logits", "CTCBeamSearchDecoder", "CTCBeamSearchDecoder:2", "CTCBeamSearchDecoder:3"],
    inputs=["images", "seq_len"],
)
def lines_by_beam_search() -> None:
    x, lengths = floats("images", None, 6), ids("seq_len")
    y = v1.sparse_placeholder(tf.int32, name="targets")
    logits = tf.tensordot(x, variable("out", [6, 5]), 1)
    logits = tf.transpose(logits, [1, 0, 2], name="logits")
    v1.nn.ctc_beam_search_decoder(logits, lengths)
    train(tf.reduce_mean(v1.nn.ctc_loss(y, logits, lengths)))


@beside("best", beside=["best:1", "logits"])
def five_best() -> None:
    x, y = floats("x", 4), ids("y")
    logits = tf.identity(dense(x, 9, "last"), "logits")
    tf.nn.top_k(logits, 5, name="best")
    train(cross_entropy(y, logits))


class Viterbi:
    """A step of decoding tags: the best score of each, and where it came from."""

    state_size, output_size = 3, 3

    def __init__(self, transitions: Any) -> None:
        self.transitions = transitions

    def zero_state(self, batch: Any, dtype: Any) -> Any:
        return tf.zeros([batch, 3], dtype)

    def __call__(self, x: Any, state: Any, scope: Any = None) -> Any:
        ways = state[..., None] + self.transitions[None]
        return tf.cast(tf.argmax(ways, 1), tf.float32), x + tf.reduce_max(ways, 1)


@beside("best_score", "last_tag", "back", beside=["scores", "rnn/transpose_1"], inputs=["words", "lengths"])
def tags_by_viterbi() -> None:
    words, lengths, tags = ids("words", 6), ids("lengths"), ids("tags", 6)
    scores = dense(tf.reshape(embed(words, 30, 8), [-1, 8]), 3, "proj")
    scores = tf.reshape(scores, [-1, 6, 3], name="scores")
    cell = Viterbi(variable("transitions", [3, 3]))
    back, last = v1.nn.dynamic_rnn(cell, scores[:, 1:], lengths - 1, initial_state=scores[:, 0], scope="viterbi")
    tf.reduce_max(last, 1, name="best_score")
    tf.argmax(last, 1, name="last_tag")
    tf.reverse_sequence(tf.cast(back, tf.int32), lengths - 1, 1, name="back")
    known = tf.reduce_sum(scores * tf.one_hot(tags, 3), 2) * tf.sequence_mask(lengths, 6, tf.float32)
    moves = tf.gather_nd(cell.transitions, tf.stack([tags[:, :-1], tags[:, 1:]], 2))
    moves *= tf.sequence_mask(lengths - 1, 5, tf.float32)
    alpha = v1.nn.dynamic_rnn(Forward(cell.transitions), scores[:, 1:], lengths - 1, initial_state=scores[:, 0])[1]
    train(-tf.reduce_mean(tf.reduce_sum(known, 1) + tf.reduce_sum(moves, 1) - tf.reduce_logsumexp(alpha, 1)))


class Forward(Viterbi):
    """A step of the sum over all ways."""

    def __call__(self, x: Any, state: Any, scope: Any = None) -> Any:
        state = x + tf.reduce_logsumexp(state[..., None] + self.transitions[None], 1)
        return state, state


# Losses in loops.


@beside("out", inputs=["x"])
def loss_in_a_map() -> None:
    x, y, w = floats("x", 5, 1), floats("y", 5, 1), variable("w", [1, 1])

    def one(given: Any) -> Any:
        out = tf.matmul(given[0], w)
        return out, squared(out, given[1])

    out, losses = v1.map_fn(one, (x, y), dtype=(tf.float32, tf.float32))
    tf.identity(out, "out")
    train(tf.reduce_mean(losses))


@beside("out", inputs=["x", "y"], is_v2=True)
def loss_in_a_map_of_functions() -> None:
    loss_in_a_map()


@beside("predictions", inputs=["x"])
def loss_in_a_loop() -> None:
    x, y, w = floats("x", 6, 3), floats("y", 6, 2), variable("w", [5, 2])

    def step(at: Any, state: Any, found: Any, loss: Any) -> Any:
        state = tf.tanh(tf.matmul(tf.concat([x[:, at], state], 1), w))
        return at + 1, state, found.write(at, state), loss + squared(state, y[:, at])

    start = 0, tf.zeros([tf.shape(x)[0], 2]), tf.TensorArray(tf.float32, 6), 0.0
    _, _, found, loss = v1.while_loop(lambda at, *_: at < 6, step, start)
    tf.transpose(found.stack(), [1, 0, 2], name="predictions")
    train(loss)


@beside("outputb", inputs=["inputa", "labela", "inputb"])
def learns_to_learn() -> None:
    tasks = floats("inputa", 5, 1), floats("labela", 5, 1), floats("inputb", 5, 1), floats("labelb", 5, 1)
    w, v = variable("w", [1, 8]), variable("v", [8, 1])

    def net(x: Any, w: Any, v: Any) -> Any:
        return tf.matmul(tf.nn.relu(tf.matmul(x, w)), v)

    def one(given: Any) -> Any:
        a, label_a, b, label_b = given
        first, second = tf.gradients(squared(net(a, w, v), label_a), [w, v])
        out = net(b, w - 0.01 * first, v - 0.01 * second)
        return out, squared(out, label_b)

    out, losses = v1.map_fn(one, tasks, dtype=(tf.float32, tf.float32))
    tf.identity(out, "outputb")
    train(tf.reduce_mean(losses))


# Gradients with respect to inputs.


def energy_of(x: Any) -> Any:
    return tf.reduce_sum(dense(dense(x, 8, "h", tf.tanh), 4, "last", tf.tanh), 1, name="energy")


@beside("energy", "forces", inputs=["positions"])
def energies_and_forces() -> None:
    x, e, f = floats("positions", 3), floats("energy_ref"), floats("forces_ref", 3)
    energy = energy_of(x)
    forces = tf.negative(tf.gradients(energy, x)[0], name="forces")
    train(squared(energy, e) + squared(forces, f))


@beside("energy", "forces", inputs=["positions"])
def energies_beside_idle_forces() -> None:
    x, e = floats("positions", 3), floats("energy_ref")
    energy = energy_of(x)
    tf.negative(tf.gradients(energy, x)[0], name="forces")
    train(squared(energy, e))


@beside("energy", "forces", inputs=["positions"])
def energies_and_forces_without_training() -> None:
    x = floats("positions", 3)
    tf.negative(tf.gradients(energy_of(x), x)[0], name="forces")


@beside("energy", "forces", inputs=["positions"])
def a_potential_of_one_layer() -> None:
    x, e = floats("positions", 3), floats("energy_ref")
    energy = tf.reduce_sum(tf.tanh(tf.matmul(x, variable("w", [3, 4]))), 1, name="energy")
    tf.negative(tf.gradients(energy, x)[0], name="forces")
    train(squared(energy, e))


@beside("probability", "saliency")
def classifier_with_a_saliency_map() -> None:
    x, y = floats("x", 6), ids("y")
    logits = dense(dense(x, 8, "h", tf.nn.relu), 3, "last")
    probability = tf.nn.softmax(logits, name="probability")
    tf.abs(tf.gradients(probability[:, 0], x)[0], name="saliency")
    train(cross_entropy(y, logits))


@beside("generator/image", inputs=["z"])
def gan_with_a_gradient_penalty() -> None:
    z, real = floats("z", 4), floats("real", 6)
    with v1.variable_scope("generator"):
        fake = tf.tanh(dense(dense(z, 8, "g1", tf.nn.relu), 6, "g2"), name="image")

    def judge(x: Any) -> Any:
        with v1.variable_scope("judge", reuse=v1.AUTO_REUSE):
            return dense(dense(x, 8, "d1", tf.nn.relu), 1, "d2")

    mixed = real + tf.random.uniform([tf.shape(real)[0], 1]) * (fake - real)
    slopes = tf.sqrt(tf.reduce_sum(tf.square(tf.gradients(judge(mixed), mixed)[0]), 1) + 1e-9)
    penalty = tf.reduce_mean(tf.square(slopes - 1.0))
    critic = tf.reduce_mean(judge(fake)) - tf.reduce_mean(judge(real)) + 10.0 * penalty
    own = [v for v in v1.trainable_variables() if v.name.startswith("judge")]
    train(critic, v1.train.AdamOptimizer(0.001), var_list=own)
    rest = [v for v in v1.trainable_variables() if v.name.startswith("generator")]
    train(-tf.reduce_mean(judge(fake)), v1.train.AdamOptimizer(0.001), var_list=rest)


# Everyday kinds.


@beside("q/BiasAdd", inputs=["state"])
def q_with_a_target_network() -> None:
    state, action, reward, after = floats("state", 4), ids("action"), floats("reward"), floats("next_state", 4)

    def q(x: Any, name: str) -> Any:
        return dense(dense(x, 8, f"{name}_h", tf.nn.relu), 3, name)

    now, later = q(state, "q"), q(after, "target")
    goal = tf.stop_gradient(reward + 0.9 * tf.reduce_max(later, 1))
    train(squared(tf.reduce_sum(now * tf.one_hot(action, 3), 1), goal))
    pairs = zip(v1.global_variables("target"), v1.global_variables("q"), strict=False)
    tf.group(*[v1.assign(a, b) for a, b in pairs if a.shape == b.shape], name="copy")


@beside("x_mean", beside=["z_mean", "z"], inputs=["x"])
def variational_autoencoder() -> None:
    x = floats("x", 12)
    h = dense(x, 8, "enc", tf.nn.softplus)
    mean, log_spread = dense(h, 2, "z_mean"), dense(h, 2, "z_log")
    z = tf.add(mean, tf.exp(log_spread / 2) * tf.random.normal(tf.shape(mean)), name="z")
    out = tf.sigmoid(dense(dense(z, 8, "dec", tf.nn.softplus), 12, "x_logit"), name="x_mean")
    rebuilt = -tf.reduce_sum(x * tf.math.log(1e-10 + out) + (1 - x) * tf.math.log(1e-10 + 1 - out), 1)
    latent = -0.5 * tf.reduce_sum(1 + log_spread - tf.square(mean) - tf.exp(log_spread), 1)
    train(tf.reduce_mean(rebuilt + latent))


@beside("pooled", "sequence", beside=["probabilities", "logits/BiasAdd"], inputs=["input_ids", "input_mask"])
def encoder_with_two_outputs() -> None:
    words, mask = ids("input_ids", 6), ids("input_mask", 6)
    h = embed(words, 30, 8) + tf.cast(mask, tf.float32)[..., None]
    h = tf.reshape(dense(tf.reshape(h, [-1, 8]), 8, "block", tf.nn.relu), [-1, 6, 8])
    tf.identity(h, "sequence")
    tf.tanh(dense(h[:, 0], 8, "pooler"), name="pooled")


@beside("probabilities", inputs=["input_ids", "input_mask"])
def classifier_on_an_encoder() -> None:
    words, mask, y = ids("input_ids", 6), ids("input_mask", 6), ids("label_ids")
    h = embed(words, 30, 8)
    h = tf.reduce_sum(h * tf.cast(mask, tf.float32)[..., None], 1)
    logits = tf.matmul(tf.tanh(dense(h, 8, "pooler")), variable("w", [3, 8]), transpose_b=True) + variable("b", [3])
    tf.nn.softmax(logits, name="probabilities")
    log_p = tf.nn.log_softmax(logits)
    train(tf.reduce_mean(-tf.reduce_sum(tf.one_hot(y, 3) * log_p, -1)))


@beside("embedding", inputs=["anchor"])
def triplets() -> None:
    anchor, good, bad = floats("anchor", 6), floats("positive", 6), floats("negative", 6)

    def tower(x: Any, name: str) -> Any:
        return tf.nn.l2_normalize(dense(dense(x, 8, "t1", tf.nn.relu), 4, "t2"), 1, name=name)

    a, p, n = tower(anchor, "embedding"), tower(good, "good"), tower(bad, "bad")
    gap = tf.reduce_sum(tf.square(a - p), 1) - tf.reduce_sum(tf.square(a - n), 1)
    train(tf.reduce_mean(tf.maximum(gap + 0.2, 0.0)))


@beside("normalized", beside=["lookup", "similarity"], inputs=[])
def words_with_noise_contrast() -> None:
    center, context = ids("center"), ids("context", 1)
    table = variable("embeddings", [50, 8])
    found = tf.nn.embedding_lookup(table, center, name="lookup")
    loss = v1.nn.nce_loss(variable("nce", [50, 8]), variable("bias", [50], 0.0), context, found, 5, 50)
    normalized = tf.divide(table, tf.norm(table, axis=1, keepdims=True), name="normalized")
    valid = tf.constant(np.arange(4), tf.int32, name="valid")
    tf.matmul(tf.nn.embedding_lookup(normalized, valid), normalized, transpose_b=True, name="similarity")
    train(tf.reduce_mean(loss))


@beside("policy/Softmax", "value", beside=["policy/BiasAdd"], inputs=["state"])
def actor_and_critic() -> None:
    state, action, gain, goal = floats("state", 4), ids("action"), floats("advantage"), floats("return")
    h = dense(state, 8, "h", tf.nn.relu)
    p = tf.nn.softmax(dense(h, 3, "policy"), name="policy/Softmax")
    value = tf.squeeze(dense(h, 1, "critic"), 1, name="value")
    log_p = tf.math.log(tf.reduce_sum(p * tf.one_hot(action, 3), 1))
    entropy = -tf.reduce_sum(p * tf.math.log(p), 1)
    train(-tf.reduce_mean(log_p * gain) + 0.5 * squared(value, goal) - 0.01 * tf.reduce_mean(entropy))


@beside("hazard", inputs=["x"])
def survival() -> None:
    x, time, event = floats("x", 5), floats("time"), floats("event")
    risk = tf.squeeze(dense(dense(x, 8, "h", tf.nn.relu), 1, "risk"), 1, name="hazard")
    at_risk = tf.cast(time[None] >= time[:, None], tf.float32)
    log_sum = tf.math.log(tf.reduce_sum(at_risk * tf.exp(risk)[None], 1))
    train(-tf.reduce_sum((risk - log_sum) * event) / tf.reduce_sum(event))


@beside("price", "demand", inputs=["x"])
def two_regressions() -> None:
    x, a, b = floats("x", 6), floats("price_true", 1), floats("demand_true", 1)
    h = dense(x, 8, "trunk", tf.nn.relu)
    price = tf.identity(dense(h, 1, "head_a"), "price")
    demand = tf.nn.softplus(dense(h, 1, "head_b"), name="demand")
    train(squared(price, a) + squared(demand, b))


@beside("expected", inputs=["context"])
def contextual_bandit() -> None:
    context, arm, reward = floats("context", 6), ids("arm"), floats("reward")
    rewards = tf.identity(dense(dense(context, 8, "h", tf.nn.relu), 4, "arms"), "expected")
    chosen = tf.gather_nd(rewards, tf.stack([tf.range(tf.shape(arm)[0]), arm], 1))
    v1.summary.scalar("regret", tf.reduce_mean(tf.reduce_max(rewards, 1) - reward))
    train(v1.losses.huber_loss(reward, chosen))


@beside("filtered", beside=["spread/Sqrt"], inputs=["observed"])
def state_space() -> None:
    observed, truth = floats("observed", 6, 2), floats("truth", 6, 3)
    a, c = variable("transition", [3, 3]), variable("gain", [2, 3])

    def step(state: Any, seen: Any) -> Any:
        return tf.matmul(state, a) + tf.matmul(seen, c)

    states = v1.scan(step, tf.transpose(observed, [1, 0, 2]), tf.zeros([tf.shape(observed)[0], 3]))
    filtered = tf.transpose(states, [1, 0, 2], name="filtered")
    tf.math.reduce_std(filtered, 1, name="spread")
    train(squared(filtered, truth))


@beside("mask", inputs=["image"], pins={"keep_prob": "1"})
def u_net_with_a_dice_loss() -> None:
    image, truth = floats("image", 8, 8, 1), floats("truth", 8, 8, 1)
    keep = v1.placeholder(tf.float32, [], name="keep_prob")
    down = conv(image, 4, "down")
    up = v1.image.resize_nearest_neighbor(v1.nn.dropout(conv(down, 4, "middle", 1), keep), [8, 8])
    mask = tf.sigmoid(conv(tf.concat([up, image], 3), 1, "last", 1, None), name="mask")
    both = 2 * tf.reduce_sum(mask * truth)
    train(1 - both / (tf.reduce_sum(mask) + tf.reduce_sum(truth) + 1e-5))


@beside("predicted", beside=["logits"], inputs=["source", "decoder_inputs"])
def translation_with_teacher_forcing() -> None:
    source, given, goal = ids("source", 5), ids("decoder_inputs", 4), ids("targets", 4)
    weights = floats("target_weights", 4)
    _, (_, last) = v1.nn.dynamic_rnn(Cell(name="enc"), embed(source, 20, 8), dtype=tf.float32, scope="enc")
    with v1.variable_scope("dec"):
        shown = tf.nn.embedding_lookup(variable("embedding", [20, 8]), given)
        h, _ = v1.nn.dynamic_rnn(Cell(name="dec"), shown, initial_state=(last, last))
    logits = tf.tensordot(h, variable("projection", [8, 20]), 1, name="logits")
    tf.argmax(logits, 2, name="predicted")
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=goal, logits=logits)
    train(tf.reduce_sum(losses * weights))


@beside("out", inputs=["batch"], pins={"is_training": "false"})
def queue_whose_labels_a_branch_takes() -> None:
    x, y = v1.train.batch([tf.zeros([3]), tf.zeros([1])], 4, name="batch")
    is_training = v1.placeholder(tf.bool, [], name="is_training")
    p = dense(x, 1, "p")
    out = tf.identity(v1.cond(is_training, lambda: p + 0 * y, lambda: p), "out")
    train(squared(out, y))


@beside("quantiles", inputs=["batch"], pins={"is_training": "false"})
def forecast_with_teacher_forcing_in_training() -> None:
    x, y = v1.train.batch([tf.zeros([6]), tf.zeros([4])], 8, name="batch")
    is_training = v1.placeholder(tf.bool, [], name="is_training")
    h, w, q = tf.tanh(tf.matmul(x, variable("we", [6, 5]))), variable("wr", [6, 5]), variable("wq", [5, 3])

    def step(at: Any, h: Any, last: Any, found: Any) -> Any:
        h = tf.tanh(tf.matmul(tf.concat([h, last], 1), w))
        out = tf.matmul(h, q)
        after = v1.cond(is_training, lambda: tf.ensure_shape(y[:, at : at + 1], [8, 1]), lambda: out[:, 1:2])
        return at + 1, h, after, found.write(at, out)

    start = 0, h, x[:, -1:], tf.TensorArray(tf.float32, 4)
    found = v1.while_loop(lambda at, *_: at < 4, step, start)[3]
    out = tf.add(tf.transpose(found.stack(), [1, 0, 2]), 1.0, name="quantiles")
    off = y[..., None] - out
    train(tf.reduce_mean(tf.maximum(0.1 * off, -0.9 * off)))


@beside("price", beside=["scaled"])
def price_that_a_metric_takes_in_its_own_unit() -> None:
    x, y = floats("x", 4), floats("y", 1)
    mean, spread = variable("mean", [], 5.0, False), variable("spread", [], 2.0, False)
    scaled = tf.identity(dense(dense(x, 8, "h", tf.nn.relu), 1, "last"), "scaled")
    price = tf.add(scaled * spread, mean, name="price")
    v1.summary.scalar("mape", tf.reduce_mean(tf.abs((y - price) / y)))
    train(squared(scaled, (y - mean) / spread))
