"""From a model's name to its class, data set, trainer and defaults."""
