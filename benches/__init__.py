"""Benchmarks: `python -m benches` runs the end-to-end parts, `pytest benches/level*.py` the levels below them."""
