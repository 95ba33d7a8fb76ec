"""Measurements, as ratios against a floor in the same run; never part of a test."""
