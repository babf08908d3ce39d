"""Keras 3 models: model files, and model classes that `fit` trains.

The module export writes an artifact like any other checkpoint: a SavedModel, its signature, rows and goldens. The
later stages know nothing of Keras. The goldens are Keras's outputs in the process that loaded or trained the model, so
the check `golden` compares export and freezing with Keras.
"""
