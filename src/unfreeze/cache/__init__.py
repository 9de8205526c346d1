"""Files under the cache folder that later runs use again."""
