"""The figures of the paper, each with the claim that it tests."""
