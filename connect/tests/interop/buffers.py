"""The local memory of an operation, what is in it before, and its digest after. NumPy arrays, one for each size."""

import hashlib

import numpy

MULTIPLIER = 0x9E3779B97F4A7C15
CHUNK = 1 << 15


def allocate(sizes: list[int], fill: int | None, source: bool) -> list[numpy.ndarray]:
    """Every byte is `fill`; without it a source has the pattern, and a destination zeros."""
    arrays = [numpy.full(size, fill or 0, dtype=numpy.uint8) for size in sizes]
    if fill is None and source:
        start = 0
        for array in arrays:
            put_pattern(array, start)
            start += array.size
    return arrays


def put_pattern(array: numpy.ndarray, start: int) -> None:
    """Byte i of the concatenation is the high byte of i * MULTIPLIER modulo 2^64. In chunks that stay in the cache."""
    steps = numpy.arange(CHUNK, dtype=numpy.uint64) * numpy.uint64(MULTIPLIER)
    for offset in range(0, array.size, CHUNK):
        part = array[offset : offset + CHUNK]
        first = numpy.uint64((start + offset) * MULTIPLIER % 2**64)
        part[:] = (steps[: part.size] + first) >> numpy.uint64(56)


def digest(arrays: list[numpy.ndarray]) -> str:
    """SHA-256 of all arrays in their order, as hex."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(array)
    return total.hexdigest()
