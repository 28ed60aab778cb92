"""The mathematics of a probe; knows no network, file or plot."""
