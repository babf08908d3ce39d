"""Keras 3 models: their files, and models of one's own that `fit` trains.

calling     a model that is fed and answers by names, whatever structure it was written with
exporting   a model as a SavedModel with the same bytes every time, and its own answers as goldens
loading     a model's file, refused with a sentence where it is damaged or would run foreign code
adopting    such a file as the checkpoint that a chain starts at
building    a model of one's own, compiled and held to its signature
weights     its variables by name, in the files of a Saver
training    trained by `fit`, saved as it goes, resumed after a kill
deploying   the step that is deployed, or weights from elsewhere, as a checkpoint

What comes out of the last two is an artifact like any other: a SavedModel, its signature, rows and goldens. So
everything behind it knows nothing of Keras. The goldens are what Keras itself answers in the process that loaded or
trained the model, so the check `golden` holds export and freezing against Keras.
"""
