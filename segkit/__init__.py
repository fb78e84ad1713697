"""Instance and panoptic segmentation on Detectron2.

Importing this package is cheap: it registers nothing and imports no other package. `segkit.engine.register_all()`
registers the datasets and the models; the commands call it.
"""

__version__ = "0.1.0"
