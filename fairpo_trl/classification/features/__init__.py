"""Frozen backbones, their preprocessing, and an exact cache of their features."""
