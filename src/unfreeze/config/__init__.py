"""Configuration: schema, messages, overrides and composition."""
