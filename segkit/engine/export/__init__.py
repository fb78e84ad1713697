"""Trained models as files that other programs run: ONNX, torch.export, and a bundle of config, weights and classes."""
