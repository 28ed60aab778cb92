"""What a probe's error is worth: metrics, statistics, controls, description length."""
