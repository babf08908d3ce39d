"""Keras 3 models: model files, and model classes that `fit` trains.

adapter        calls a model by names of inputs and outputs, for every model structure
saved_model    writes a model as a reproducible SavedModel, and Keras's own outputs as goldens
load           loads a model file; refuses damaged files and files that would run code
import_model   imports a model file as the checkpoint of a chain
graphs         builds and compiles a model class, and checks its signature
weights        a model's variables by name, for Saver files
train          trains with `fit`, saves checkpoints, resumes after an interruption
export         writes a training step, or other weights, as the checkpoint to deploy

import_model and export write an artifact like any other checkpoint: a SavedModel, its signature, rows and goldens. The
later stages know nothing of Keras. The goldens are Keras's outputs in the process that loaded or trained the model, so
the check `golden` compares export and freezing with Keras.
"""
