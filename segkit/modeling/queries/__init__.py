"""What mask transformers share: outputs and targets, matching, losses, and the model around their network."""

from segkit.modeling.queries.criterion import QueryCriterion
from segkit.modeling.queries.outputs import QueryOutputs, QueryTargets

__all__ = ["QueryCriterion", "QueryOutputs", "QueryTargets"]
