"""What the gateway costs, each figure beside a yardstick from the same run: `python -m benchmarks` prints JSON.

Absolute times mean nothing on a shared machine; the ratios do, because figure and yardstick take turns on it.
"""
