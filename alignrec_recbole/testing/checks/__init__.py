"""The checks of `model_checks`, by what they look at."""
