"""A Keras model of one's own: which digit is it, in an image of 8 x 8 pixels? Run it from the project's root:

luigi --module pipeline WriteReport --model examples/digits.py:Digits

digits.csv holds the 1,797 images that scikit-learn ships: the test set of Optical Recognition of Handwritten Digits,
by E. Alpaydin and C. Kaynak, 1998, from the UCI Machine Learning Repository, doi.org/10.24432/C50P49, CC BY 4.0.
"""

import keras
import numpy as np

from pipeline import Decision, Examples, Signature, TensorSpec, read_table

PIXELS = {f"p{row}{column}": "float32" for row in range(8) for column in range(8)}  # 0 white, 16 black


class Digits:
    # What is promised to those who deploy it: names, dtypes, shapes, and which output decides.
    signature = Signature(
        inputs=[TensorSpec("image", "float32", [None, 8, 8, 1])],
        outputs=[TensorSpec("probabilities", "float32", [None, 10])],
        decision=Decision("probabilities", labels=list("0123456789")),  # no threshold: the largest wins
    )
    data = "digits.csv"  # beside this file; --data gives another

    def build(self):
        # Compiled, so `fit` trains it, for [training] steps of batch_size rows.
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
