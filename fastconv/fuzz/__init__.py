"""Random problems over every operator, in search of inputs that break it.

``python -m fastconv fuzz`` draws short programs of calls (`case.Case`), runs each in a worker
process, compares every result with the float64 reference, and shrinks what fails to the smallest
program that fails alike. Hypothesis draws and shrinks; it is imported when the command runs.

`operators.OPERATORS` is the table of what is drawn: a new operator is one entry there.
"""
