"""The fused core of the sigmoid losses: `split_scores`, and what goes into it."""
