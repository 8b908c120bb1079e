"""Measurements, as ratios within one run: machines differ, and so does the same machine an hour later."""
