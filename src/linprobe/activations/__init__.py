"""From a network to features."""
