"""From the tensors of the heads to panoptic segmentations.

On the CPU, head_outputs.py builds the parts of HeadOutputs for the methods of segkit.fusion. On a GPU, panoptic.py
(`PanopticPostProcessor`) fuses with tensor operations: resampling.py (semantic logits), detections.py (instances),
paste.py (masks), heuristic.py, logit_fusion.py and mask_argmax.py (methods), panoptic_tensors.py (results).
"""
