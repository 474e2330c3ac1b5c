"""Tensor operations with exact gradients."""
