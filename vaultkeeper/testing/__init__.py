"""For authors of back ends: contract suites, simulated systems with faults, an in-memory store. Needs pytest only for
the suites.
"""
