"""The arithmetic of fastconv, installed as ``fastconv.kernels``.

``reference`` is the truth: plain NumPy in float64, never dispatched to. The kernels that run
live in one folder a device (``cpu``, ``cuda``); the library names none, and reaches them through
the registry of specs in ``fastconv.dispatch``. A kernel knows memory and arithmetic: it imports
``fastconv.contract``, kernels of its device and the modules here, which both devices share. The
emulator of CUDA alone also imports ``cpu.runtime``, whose compiler and cache it runs on.

What is no kernel the library imports as any module: what builds rulebooks, the compiler's counts,
the measured peak, audit, forecast, emulator and reference. ``tests/api/test_imports.py`` lists who
imports what, and reads every import.

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
