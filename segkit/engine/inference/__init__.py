"""Trained models in use: `load` finds and builds one, `SegmentationModel` predicts images."""
