"""Example of a Keras model: recognizes the digit in an image of 8 x 8 pixels. Run it from the project's root:

luigi --module pipeline WriteReport --model examples/digits.py:Digits

digits.csv has the 1,797 images that come with scikit-learn: the test set of Optical Recognition of Handwritten Digits,
by E. Alpaydin and C. Kaynak, 1998, from the UCI Machine Learning Repository, doi.org/10.24432/C50P49, CC BY 4.0.
"""

import keras
import numpy as np

from pipeline import Decision, Examples, Signature, TensorSpec, read_table

PIXELS = {f"p{row}{column}": "float32" for row in range(8) for column in range(8)}  # 0 white, 16 black


class Digits:
    # Names, dtypes and shapes of the deployed model, and the output that decides.
    signature = Signature(
        inputs=[TensorSpec("image", "float32", [None, 8, 8, 1])],
        outputs=[TensorSpec("probabilities", "float32", [None, 10])],
        decision=Decision("probabilities", labels=list("0123456789")),  # no threshold: the largest value wins
    )
    data = "digits.csv"  # next to this file; --data gives another file

    def build(self):
        # Compiled, so that `fit` trains it for [training] steps, each with batch_size rows.
        model = keras.Sequential(
            [
                keras.Input([8, 8, 1], name="image"),
                keras.layers.Rescaling(1 / 16),
                keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
                keras.layers.BatchNormalization(momentum=0.9),
                keras.layers.MaxPooling2D(),
                keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
                keras.layers.Dropout(0.25),
                keras.layers.Flatten(),
                keras.layers.Dense(10, activation="softmax", name="probabilities"),
            ]
        )
        model.compile(keras.optimizers.Adam(0.002), "sparse_categorical_crossentropy")
        return model

    def examples(self, path):
        table = read_table(path, PIXELS, label="digit")
        images = np.stack([table.inputs[name] for name in PIXELS], axis=1).reshape(-1, 8, 8, 1)
        return Examples({"image": images}, table.labels)
