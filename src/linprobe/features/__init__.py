"""From networks to feature matrices."""

from linprobe.features.extract import extract_features, feature_widths, plan_groups

__all__ = ["extract_features", "feature_widths", "plan_groups"]
