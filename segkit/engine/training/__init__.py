"""Training: a loop whose whole state is saved, over Detectron2's hook protocol."""
