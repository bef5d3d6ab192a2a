"""The paper's experiments: density models of images, one for every way to mix channels.

E. Hoogeboom, R. van den Berg, M. Welling, Emerging Convolutions for Generative Normalizing Flows,
ICML 2019. The rooms, bottom up: data, models, recipes, evaluation, training, compare, command.
May import `options`, `measure`, `results` and `report`.
"""
