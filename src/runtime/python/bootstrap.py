"""Placeholder until the bootstrap is in: says hello and fails."""
