"""A contender of bayesian_layers.py in a process of its own: tfp, tfp_xla or ours."""

import sys

from benchmarks import common

common.one_thread()

from benchmarks import bayesian_layers as benchmark  # noqa: E402

if __name__ == "__main__":
    kinds = {
        "tfp": benchmark.tfp_layers,
        "tfp_xla": lambda: benchmark.tfp_layers(jit_compile=True),
        "ours": benchmark.ours,
    }
    common.serve(kinds[sys.argv[1]]())
