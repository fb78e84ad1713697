"""Instance and panoptic segmentation on Detectron2.

Importing this package registers nothing and touches no disk; `segkit.engine.register_all()` registers
the datasets and the models, and the entry points call it.
"""

__version__ = "0.1.0"
