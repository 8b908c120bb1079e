"""Servers and networks in trouble: what a run makes of cut connections, servers that die, poolers and rivals.

The scenarios are functions of their size: the tests call them small, `python -m tests.faults` calls them long.
"""
