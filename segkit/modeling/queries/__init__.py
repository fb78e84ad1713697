"""What mask transformers share: their outputs and targets, the matching, the losses."""

from segkit.modeling.queries.outputs import QueryOutputs, QueryTargets

__all__ = ["QueryOutputs", "QueryTargets"]
