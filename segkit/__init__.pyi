from segkit.config import add_segkit_config as add_segkit_config
from segkit.config import load_config as load_config
from segkit.data.catalog import load_dataset as load_dataset
from segkit.engine import register as register
from segkit.engine.inference.loading import load as load
from segkit.engine.inference.model import SegmentationModel as SegmentationModel
from segkit.engine.setup import prepare_config as prepare_config
from segkit.engine.training.trainer import Trainer as Trainer
from segkit.runtime.prediction import Prediction as Prediction

__version__: str
PUBLIC: dict[str, str]
