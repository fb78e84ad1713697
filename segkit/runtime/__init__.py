"""Predictions without torch: the images that models read, and `Prediction`, which a model gives for each."""
