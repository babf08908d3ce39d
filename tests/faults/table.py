"""The page of the planted faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from .cases import Outcome
from .peers import FAILS, RULES, WARNS

PAGE = Path(__file__).parents[2] / "docs" / "planted_faults.md"
_HEAD = """# Planted faults

Pairs of a checkpoint and a `.pb` that is wrong in one way, and a few that are right. What catches each, the cause that
`verdict.json` tells, and what the comparison rules of other tools make of the outputs of both sides for the same
{rows}. Made by `python -m tests.faults --table`, with TensorFlow {version}; the faults are in `tests/faults/`.

The other tools' rules are written anew after their sources, at their defaults, and each is given the reference's and
the candidate's outputs by name:

- **Polygraphy**, `CompareFunc.simple` in `tools/Polygraphy/polygraphy/comparator/compare.py` of NVIDIA/TensorRT:
  outputs are paired by name, by a part of it, or by position, and those without a partner left out; an element fails
  beyond rtol 1e-5 *and* atol 1e-5.
- **model_navigator**, `correctness` in `model_navigator/commands/correctness/correctness_script.py` of
  triton-inference-server/model_navigator: as many outputs, no NaN, no infinity; differences are noted and held to no
  bound.
- **Olive**, `OnnxDiscrepancyCheck` in `olive/passes/onnx/discrepancy_check.py` of microsoft/Olive: the first output
  alone; its largest difference against `max_mae`, here 1e-5 (none is set by default, and then everything passes).
- **Optimum**, `validate_model_outputs` in `optimum/exporters/onnx/convert.py` of huggingface/optimum: the outputs that
  the candidate has; `numpy.allclose` with atol 1e-5; the command turns what differs into a warning
  (`optimum/exporters/onnx/__main__.py`), and the export has succeeded.

A rule that *warns* has noticed, and lets it through. *Notices* below counts both.

"""


def is_noticed(cell: str) -> bool:
    """Whether a rule speaks up."""
    return cell.startswith((FAILS, WARNS))


def page(outcomes: Sequence[Outcome]) -> str:
    """The page in Markdown."""
    faults = [one for one in outcomes if not one.fault.is_control]
    controls = [one for one in outcomes if one.fault.is_control]
    names = ["this pipeline", *RULES]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    caught = [str(sum(bool(one.checks) for one in faults))]
    caught += [str(sum(is_noticed(one.by_peers[name]) for one in faults)) for name in RULES]
    stopped = [str(sum(bool(one.checks) for one in faults))]
    stopped += [str(sum(one.by_peers[name].startswith(FAILS) for one in faults)) for name in RULES]
    passed = [str(sum(not one.checks for one in controls))]
    passed += [str(sum(not is_noticed(one.by_peers[name]) for one in controls)) for name in RULES]
    lines.append(f"| of {len(faults)} faults, notices | {' | '.join(caught)} |")
    lines.append(f"| of {len(faults)} faults, stops | {' | '.join(stopped)} |")
    lines.append(f"| of {len(controls)} right pairs, passes | {' | '.join(passed)} |")
    lines += ["", f"| fault | what is wrong | caught by | cause | {' | '.join(RULES)} |", "|---|" + "---|" * 7]
    for one in [*faults, *controls]:
        checks = ", ".join(sorted(one.checks)) or "nothing: passes"
        kind = f"`{one.kind}`" if one.kind else ""
        cells = [one.fault.name, one.fault.what, checks, kind, *(one.by_peers[name] for name in RULES)]
        lines.append(f"| {' | '.join(cells)} |")
    rows = "validation rows"
    return _HEAD.format(version=tf.__version__, rows=rows) + "\n".join(lines) + "\n"
