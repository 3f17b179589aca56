"""What `benchmarks/simulate.py` compares: one workload, several engines, each run in a process of its own."""
