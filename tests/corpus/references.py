"""References and handles that ops pass on."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .cases import BOTH, EQUAL, REFUSED, case, raw, weight


@case("References", EQUAL, "passed on by Identity", res=BOTH)
def identity(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    return x * (raw.ReadVariableOp(resource=tf.identity(w.handle), dtype=tf.float32) if res else tf.identity(w._ref()))


@case("References", EQUAL, "passed on by RefIdentity")
def RefIdentity(x: Any) -> Any:
    return x * tf.identity(raw.RefIdentity(input=weight("w", [3], False)._ref()))


@case("References", EQUAL, "passed on by RefSwitch and RefMerge")
def RefSwitch_and_RefMerge(x: Any) -> Any:
    w = weight("w", [3], False)
    off, on = raw.RefSwitch(data=w._ref(), pred=tf.reduce_sum(x) > 0)
    merged = raw.RefMerge(inputs=[raw.RefIdentity(input=off), raw.RefIdentity(input=on)])
    return x * tf.identity(merged.output)


@case("References", EQUAL, "passed on by RefSwitch, joined by Merge")
def RefSwitch(x: Any) -> Any:
    off, on = raw.RefSwitch(data=weight("w", [3], False)._ref(), pred=tf.reduce_sum(x) > 0)
    return x * raw.Merge(inputs=[off * 2.0, on * 3.0]).output


@case("References", EQUAL, "into a loop's frame by RefEnter", flow=(False,))
def RefEnter(x: Any) -> Any:
    w = weight("w", [3], False)
    entered = raw.RefEnter(data=w._ref(), frame_name="frame", is_constant=True)
    inside = raw.Enter(data=x, frame_name="frame")
    return raw.Exit(data=inside * entered)


@case("References", REFUSED, "one reference of several, chosen by an index")
def RefSelect(x: Any) -> Any:
    chosen = raw.RefSelect(
        index=tf.cast(tf.reduce_sum(x) > 0, tf.int32),
        inputs=[weight("w", [3], False)._ref(), weight("u", [3], False)._ref()],
    )
    return x * tf.identity(chosen)


@case("References", EQUAL, "handles through IdentityN, of two dtypes")
def IdentityN(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3], dtype=tf.float64)
    first, second, _ = raw.IdentityN(input=[w.handle, u.handle, x])
    read = raw.ReadVariableOp(resource=second, dtype=tf.float64)
    return x * raw.ReadVariableOp(resource=first, dtype=tf.float32) * tf.cast(read, tf.float32)
