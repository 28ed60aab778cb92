"""Records of runs: schema, files, comparison."""
