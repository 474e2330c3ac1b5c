"""Named checks of a data set, its features and a model: what they know of the test split."""
