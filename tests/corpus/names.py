"""Names of nodes and of outputs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .cases import BOTH, EQUAL, REFUSED, case, v1, weight


@case("Names", EQUAL, "a variable has the name of another's reader", res=BOTH)
def named_like_a_read(x: Any, res: bool) -> Any:
    trap = weight("w/Read/ReadVariableOp" if res else "w/read", [3], res)
    return x * weight("w", [3], res) + trap


@case("Names", EQUAL, "names of ops, functions and ports as names of variables")
def odd_names(x: Any) -> Any:
    names = ["cond", "save/restore_all", "Const", "output", "value", "a.b/c-d_e", "while/body"]
    return tf.add_n([x * weight(f"v/{name}", [3]) for name in names])


@case("Names", EQUAL, "nodes of a function's body have the names of nodes and variables of the graph")
def same_names_in_function(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3])

    @tf.function
    def run(u_value: Any) -> Any:
        return tf.identity(u_value * w, name="u")

    return run(x * u)


@case("Names", EQUAL, "a name scope opened twice")
def scopes(x: Any) -> Any:
    with v1.variable_scope("a"):
        y = x * weight("w", [3])
    with v1.variable_scope("a", auxiliary_name_scope=False):
        return y + weight("v", [3])


@case("Outputs", EQUAL, "another port than the first")
def port(x: Any) -> Any:
    return tf.split(x * weight("w", [3]), 3, axis=1, name="split")[1]


@case("Outputs", EQUAL, "several outputs, one of them twice used")
def several(x: Any) -> Any:
    y = x * weight("w", [3])
    values, where = tf.nn.top_k(y, 2)
    return [y, values, tf.cast(where, tf.float32) + weight("s", [])]


@case("Outputs", REFUSED, "a port that the node does not have", mentions="split")
def no_such_port(x: Any) -> Any:
    y = tf.split(x * weight("w", [3]), 3, axis=1, name="split")
    return {"split:7": y[0]}


@case("Outputs", REFUSED, "a node that is not there", mentions="probs")
def no_such_output(x: Any) -> Any:
    return {"probs:0": tf.multiply(x, weight("w", [3]), name="prob")}


@case("Outputs", EQUAL, "a placeholder, a constant and a first value as outputs", has_weights=False)
def without_variables(x: Any) -> Any:
    w = weight("w", [3])
    return [x, tf.constant([1.0, 2]), w.initial_value]


@case("Outputs", EQUAL, "read beside an assignment that no output waits for", res=BOTH)
def beside_an_assignment(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    v1.assign_add(w, [1.0, 1, 1])
    return x * w


for _name in ("^y", "y:", "y:-1", "y:a", "y:\u0661", "y:output:0", ":0"):
    case("Outputs", REFUSED, "what is no tensor's name", name=f"output {_name!a}", mentions="no name")(
        lambda x, name=_name: {name: tf.multiply(x, weight("w", [3]), name="y")}
    )
