"""Backbones, heads, layer groups, weights. Knows neither data nor Lightning."""
