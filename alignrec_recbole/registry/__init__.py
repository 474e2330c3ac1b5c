"""Model names → classes, data sets, trainers and defaults."""
