"""Probe every layer of a Keras 3 network, whatever its backend.

KERAS_BACKEND=torch python examples/keras_network.py [--quick]
"""

import os
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras

import linprobe


def make_model() -> keras.Model:
    """A small convolutional network with a shortcut."""
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(8, 5, 2, activation="relu", name="conv1")(inputs)
    y = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2")(x)
    x = keras.layers.Add(name="add")([x, y])
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.25, name="dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(32, activation="relu", name="dense")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))


def main(num_train: int = 5_000, num_test: int = 2_000) -> None:
    """Print the probes of the untrained and of the trained network."""
    keras.utils.set_random_seed(0)
    data = linprobe.load_dataset("fashion-mnist")
    x, xt = (images[..., None].numpy() / 255 for images in (data.train_images, data.test_images))
    train = x[:num_train], data.train_labels[:num_train].numpy()
    test = xt[:num_test], data.test_labels[:num_test].numpy()
    model = make_model()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network = linprobe.KerasNetwork(model)
    print(linprobe.layers(network, x[:2]))
    for state in ("untrained", "trained"):
        if state == "trained":
            model.fit(*train, batch_size=64, epochs=1, verbose=0)
        print(f"\n{state}\n{linprobe.probe(network, train, test)}")


if __name__ == "__main__":
    if "--quick" in sys.argv[1:]:
        main(num_train=400, num_test=200)
    else:
        main()
