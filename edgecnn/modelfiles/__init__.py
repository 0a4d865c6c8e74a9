"""Readers of other people's model formats, without their engines."""
