"""Weights in, integers and scales out (only storage precisions so far)."""
