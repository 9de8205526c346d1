"""Backbones, heads, layer groups and weights."""
