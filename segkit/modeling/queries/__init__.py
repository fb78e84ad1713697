"""What mask transformers share: their outputs and targets, the matching, the losses."""

from segkit.modeling.queries.criterion import QueryCriterion
from segkit.modeling.queries.outputs import QueryOutputs, QueryTargets

__all__ = ["QueryCriterion", "QueryOutputs", "QueryTargets"]
