"""The names of files in artifacts."""

from __future__ import annotations

GRAPH_FILE, WEIGHTS_FOLDER = "graph.pb", "weights"

SIGNATURE = "signature.json"
