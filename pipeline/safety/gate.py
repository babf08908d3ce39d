"""Judges a model by what a run takes of it: what its outputs and the restoring of its variables need.

A checkpoint's graph holds all that a training had, such as a reader of its files. What could do more than compute and
is needed is refused, unless it is allowed. The rest is cut away before TensorFlow loads anything (see
`freezing.harmless`). A SavedModel is loaded as it is, so all of it counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from pipeline.checkpoint.opened import Source
from pipeline.graph.nodes import normalize_tensor

from . import Danger, require_safe
from .graphs import fills_table
from .models import find_source_dangers, require_bounded_source, require_safe_source
from .reach import Calls


@dataclass(frozen=True)
class Gate:
    """What a model could do besides computing, and what of it a run needs.

    Args:
        source: the model.
        allowed: names of ops that the user allows.
    """

    source: Source
    allowed: Collection[str] = ()

    @cached_property
    def dangers(self) -> tuple[Danger, ...]:
        """All that it could do, wherever it stands; nothing of it is run."""
        return tuple(find_source_dangers(self.source))

    @cached_property
    def refused(self) -> tuple[Danger, ...]:
        """The dangers that are not allowed."""
        return tuple(danger for danger in self.dangers if danger.op not in self.allowed)

    @property
    def is_loaded_whole(self) -> bool:
        """True if TensorFlow loads the file as it is, so that nothing can be cut away."""
        return self.source.kind == "SavedModel" or len(self.source.metas) != 1

    def find_needed(self, outputs: Iterable[str], fed: Iterable[str]) -> list[Danger]:
        """Finds the refused dangers that a run needs.

        Args:
            outputs: tensors or nodes.
            fed: tensors whose values are fed: what they are computed from is not run.
        """
        if self.is_loaded_whole or not self.refused:
            return list(self.refused)
        nodes, functions = self._calls.reach(outputs, fed=set(map(normalize_tensor, fed)))
        more_nodes, more_functions = self._restoring
        return [
            danger
            for danger in self.refused
            if (
                danger.function in functions or danger.function in more_functions
                if danger.function
                else danger.node in nodes or danger.node in more_nodes
            )
        ]

    def ops_for(self, outputs: Iterable[str], fed: Iterable[str]) -> list[str]:
        """Returns the ops that have to be allowed for a run, beside those that are."""
        return list(dict.fromkeys(danger.op for danger in self.find_needed(outputs, fed)))

    def require(self, outputs: Iterable[str], fed: Iterable[str]) -> None:
        """Refuses a run that needs what could do more than compute.

        Args:
            outputs, fed: see `find_needed`.

        Raises:
            UnsafeModel: a needed danger is not allowed.
        """
        require_safe(self.source.graph_file, self.find_needed(outputs, fed))

    def enter(self) -> None:
        """Refuses what is refused whatever a run takes: a file that is loaded whole, and more memory than there is.

        Raises:
            UnsafeModel: it is refused.
        """
        if self.is_loaded_whole:
            require_safe_source(self.source, self.allowed)
        else:
            require_bounded_source(self.source)

    def allowances(self) -> list[str]:
        """Returns the allowed dangers, as sentences for the manifest."""
        return [f"{danger}: could {danger.harm}" for danger in self.dangers if danger.op in self.allowed]

    @cached_property
    def _calls(self) -> Calls:
        return Calls(self.source.metas[0].graph)

    @cached_property
    def _restoring(self) -> tuple[Collection[str], Collection[str]]:
        """What is run when the variables are restored and the tables are filled."""
        meta = self.source.metas[0]
        saver = meta.rest.saver_def
        fillers = [node.name for node in meta.graph.node if fills_table(node)]
        filename = {normalize_tensor(saver.filename_tensor_name)} if saver.filename_tensor_name else set()
        return self._calls.reach([*fillers, saver.restore_op_name], fed=filename)
