"""The arithmetic of fastconv, installed as ``fastconv.kernels``.

``reference.py`` is the truth: plain NumPy in float64, never dispatched to. The kernels that run
live in one folder a device (``cpu``, ``cuda``), and are reached through ``fastconv.dispatch`` only.
A kernel knows memory and arithmetic; of fastconv it imports ``fastconv.contract`` and nothing else.

Examples
--------
>>> import fastconv.kernels.reference
>>> fastconv.kernels.__name__
'fastconv.kernels'
"""

# With the project root on sys.path this folder is importable as `kernels` as well: its modules
# would then exist twice, and the bare name belongs to another project (Hugging Face's).
if __name__ != "fastconv.kernels":
    raise ImportError(
        f"this folder is the package fastconv.kernels and cannot be imported as {__name__!r}: "
        "use `import fastconv.kernels`"
    )
