"""A file as users write one: a network, data, loss, optimizer, schedule and augmentation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax


class Net(nn.Module):
    num_classes: int = 3
    width: int = 4

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(self.width, (3, 3), 2)(images))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


def open_mine(data_dir=None):
    rng = np.random.default_rng(0)

    def draw(count):
        labels = np.arange(count) % 3
        images = rng.integers(0, 120, (count, 8, 8, 3)) + 60 * labels[:, None, None, None]
        return images.astype(np.uint8), labels

    return draw(90), draw(40), ("dark", "gray", "light")


def focal(logits, labels, *, gamma=2.0):
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)[:, 0]
    return -((1 - jnp.exp(log_p)) ** gamma) * log_p


def slow_lion(learning_rate, slowness=1.0):
    return optax.chain(optax.lion(learning_rate), optax.scale(1 / slowness))


def own_rate(b1=0.9):
    return optax.adam(1e-3, b1)


def rise(learning_rate, total_steps, power=1.0):
    return lambda step: learning_rate * ((step + 1) / total_steps) ** power


def noise(key, image, amount=8.0):
    return image + amount * jax.random.normal(key, image.shape)


# What is wrong with these is in their names.


def mean_loss(logits, labels):
    return focal(logits, labels).mean()


def loss_of_logits(logits):
    return logits.mean(-1)


def number_for_optimizer(learning_rate):
    return 0.1


def update_of_one_number(learning_rate):
    return optax.stateless(lambda updates, _: jax.tree.map(jnp.sum, updates))


def number_for_schedule(learning_rate):
    return learning_rate


def rate_of_two(learning_rate):
    return lambda step: jnp.stack([step, step])


def smaller(key, image, amount):
    return image[1:]


def without_key(image):
    return image


def nothing(data_dir=None):
    return None


def with_argument(folder):
    return open_mine()


def floats():
    (images, labels), test, names = open_mine()
    return (images / np.float32(255), labels), test, names


def gray():
    (images, labels), test, names = open_mine()
    return (images[..., 0], labels), test, names


def one_hot():
    (images, labels), test, names = open_mine()
    return (images, np.eye(3)[labels]), test, names


def fewer_labels():
    (images, labels), test, names = open_mine()
    return (images, labels[1:]), test, names


def count_of_classes():
    return (*open_mine()[:2], 3)


def two_names():
    return (*open_mine()[:2], ("dark", "gray"))


def misspelled_source():
    return opne_mine()  # noqa: F821


def misspelled_loss(logits, labels):
    return logits.men(-1)


def misspelled_step(key, image, amount):
    return {"image": image}["imge"]


def misspelled_optimizer(learning_rate):
    return optax.sgdd(learning_rate)


def misspelled_schedule(learning_rate):
    return lambda step: learning_rate * stp  # noqa: F821


class WithoutTrain(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.num_classes)(images.mean((1, 2)))


class Maps(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(self.num_classes)(images)


class Pair(Maps):
    def __call__(self, images, *, train=False):
        return super().__call__(images, train=train).mean((1, 2)), train
