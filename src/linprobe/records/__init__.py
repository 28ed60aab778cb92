"""What is known of a run: schema, files, comparison."""
