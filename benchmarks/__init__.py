"""Ours against other libraries, side by side in one process: ``python -m benchmarks``.

Every row of the table is one kind of work. It is done by this package and by its peers on the same inputs, in
turns, on one thread; what is compared is the CPU time of the process (medians), and the error of both against
a plain float64 computation. Nothing here is a test: times depend on the machine, ratios less so.
"""
