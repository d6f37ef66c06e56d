"""The benchmarks: what a request costs, where it goes, how fast usage is settled. docs/speed.md tells what they say."""
