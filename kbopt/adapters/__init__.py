"""kbopt's evaluator inside other optimizers. Each module needs the package that it is named after.

`contest` lets them search the tasks of a benchmark.
"""
