"""One-off commands beside Luigi's: `python -m pipeline why TASK …`, `verify FOLDER`, `freeze CHECKPOINT …`."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import PipelineError, SettingError, nearest

# Each command loads what it needs: Luigi alone takes longer to load than a small checkpoint to freeze.
if TYPE_CHECKING:
    from .manifest import Manifest
    from .store import State


def why(arguments: Sequence[str]) -> int:
    """Says of each stage whether it would run, and why; runs nothing.

    Args:
        arguments: a task and its parameters, as `luigi --module pipeline` takes them.

    Returns:
        0 if everything is complete, 1 if something would run, 2 if something is damaged.
    """
    from luigi.cmdline_parser import CmdlineParser

    from . import chain
    from .store import Condition
    from .tasks import ROOT_HOOKS, TASKS, ModelTask

    names = [task.__name__ for task in TASKS.values()]
    if not arguments or arguments[0] not in names:
        got = arguments[0] if arguments else "nothing"
        raise SettingError("why needs a task", got=got, next_step=nearest(got, names))
    ROOT_HOOKS.clear()  # this is no run
    with CmdlineParser.global_instance(list(arguments)) as command:
        task = command.get_task_obj()
        assert isinstance(task, ModelTask)  # it was one of the names above
        states = chain.examine(task.job, task.stage)
    for stage, state in states.items():
        _print_state(stage, state)
    conditions = {state.condition for state in states.values()}
    return 2 if Condition.DAMAGED in conditions else int(conditions != {Condition.COMPLETE})


def _print_state(stage: str, state: State) -> None:
    from .store import Condition

    will = {
        Condition.COMPLETE: "is complete",
        Condition.MISSING: "would run",
        Condition.STALE: "would run",
        Condition.WAITING: "might run",
        Condition.DAMAGED: "is damaged",
    }
    first, *others = state.reasons or ("",)
    print(f"{stage:<12} {will[state.condition]}{': ' if first else ''}{first}")
    for reason in others:
        print(f"{'':<12} {reason}")


def verify(folder: Path) -> int:
    """Hashes an artifact again, and the inputs that its manifest records.

    Returns:
        0 if all bytes are those that were finished and the inputs are as they were; 1 if an input
        changed or is gone since.

    Raises:
        StoreError: `folder` is no artifact.
        DamagedArtifact: a file or the manifest is not as it was finished.
    """
    from . import store

    manifest = store.verify(folder)
    print(f"{folder}: {len(manifest.files)} files, every byte as it was finished")
    changed = list(_changed_inputs(folder, manifest))
    for sentence in changed:
        print(sentence)
    return int(bool(changed))


def _changed_inputs(folder: Path, manifest: Manifest) -> Any:
    """Sentences on inputs that are not as they were when the artifact was made."""
    upstream: Mapping[str, str] = manifest.ingredients.get("upstream", {})
    for label, digest in upstream.items():
        yield from _compare_input(folder.absolute().parent / label, digest)
    for label, path in manifest.notes.get("inputs", {}).items():
        yield from _compare_input(Path(path), manifest.ingredients["files"][label])


def _compare_input(path: Path, digest: str | None) -> Any:
    from .fingerprint import digest_file

    if not path.is_file():
        yield f"input {path} is gone"
    elif (actual := digest_file(path)) != digest:
        yield f"input {path} changed: sha256 was {str(digest)[:12]}…, is {actual[:12]}…"


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit code: of the command, or 3 for an error of ours, said on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    parts = commands.add_parser("why", help="say of each stage whether it would run, and why; exit 0 if none would")
    parts.add_argument("task", nargs=argparse.REMAINDER, help="a task and its parameters, as luigi takes them")
    parts = commands.add_parser("freeze", help="freeze a checkpoint or a SavedModel into one .pb, without TensorFlow")
    parts.add_argument(
        "checkpoint", type=Path, help="its prefix, one of its files, or a folder; or the folder of a SavedModel"
    )
    parts.add_argument("--outputs", default="", help="comma-separated names of tensors; a SavedModel's own by default")
    parts.add_argument("--signature", help="of a SavedModel with several, which one")
    parts.add_argument(
        "--inputs", default="", help="comma-separated placeholders to keep, or inner tensors to make inputs of"
    )
    parts.add_argument("-o", "--to", type=Path, default=Path("model.pb"), help="the file to write (default: model.pb)")
    parts = commands.add_parser("verify", help="hash an artifact and its inputs again; exit 0 if nothing changed")
    parts.add_argument("folder", type=Path, help="the artifact's folder, such as output/spam/frozen")
    given = parser.parse_args(arguments)
    try:
        if given.command == "freeze":
            from .freezing import freeze

            gc.disable()  # what it holds, it holds to the end: looking through that again and again finds nothing
            names = _listed(given.outputs), _listed(given.inputs)
            print(freeze(given.checkpoint, *names, given.to, given.signature))
            return 0
        return why(given.task) if given.command == "why" else verify(given.folder)
    except PipelineError as exc:
        print(exc, file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
