"""Metrics over saved files: no model, no torch, no Detectron2. One file per kind of prediction."""
