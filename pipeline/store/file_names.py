"""The names of the files in artifacts, each written once.

Stages find each other's files by these names. They are part of the product's contract: change none.
"""

from __future__ import annotations

# In every artifact; in every one that can be run; and where a format cannot carry the model.
MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "signature.json"
REFUSAL_FILE = "refusal.json"

# graph: the graphs to deploy, to train and to evaluate; of a Keras model its architecture.
INFERENCE_GRAPH_FILE = "inference.meta"
TRAINING_GRAPH_FILE = "training.meta"
EVALUATION_GRAPH_FILE = "evaluation.meta"
ARCHITECTURE_FILE = "model.json"

# training
DEPLOY_FOLDER = "deploy"
HISTORY_FILE = "history.csv"  # of a training, a line per evaluation; of nights, a line per night
LOSSES_FILE = "losses.npz"

# checkpoint: a Saver's prefix or a SavedModel, with the rows to validate and the recorded answers
CHECKPOINT_PREFIX = "model.ckpt"
SAVED_MODEL_FOLDER = "saved_model"
VALIDATION_ROWS_FILE = "validation.npz"
GOLDENS_FILE = "goldens.npz"

# The formats.
FROZEN_FILE = "model.pb"
TFLITE_FILE = "model.tflite"
ONNX_FILE = "model.onnx"
GRAPH_FILE, WEIGHTS_FOLDER = "graph.pb", "weights"  # mmap
SAVED_MODEL_FILE = "saved_model.pb"  # TensorFlow's own name
SAVED_MODEL_TEXT_FILE = "saved_model.pbtxt"
SAVED_MODEL_FILES = (SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE)

# validation
RESULTS_FILE = "results.csv"
VERDICT_FILE = "verdict.json"
WORST_FOLDER = "worst"
WORST_FILE = "worst.json"
RERUN_SCRIPT = "reproduce.sh"

# costs
COSTS_FILE = "costs.json"
COSTS_TABLE_FILE = "costs.csv"

# report, and the tables of a batch
REPORT_FILE = "report.html"
REPORT_FIGURES_FILE = "report.json"
SUMMARY_FILE = "summary.md"
JUNIT_FILE = "junit.xml"

# night
RECORD_FILE = "record.json"
ANSWERS_FILE = "answers.npz"
DRIFT_FILE = "drift.json"
NIGHTS_PAGE_FILE = "nights.html"
