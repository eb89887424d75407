"""The exact paired test of per-image margins, for one training seed or several."""

import math
from collections import Counter
from collections.abc import Sequence

#: Probabilities of sums are not accurate below this.
SMALLEST = 1e-12


def exact_test(margins: Sequence[int]) -> float:
    """Return the two-sided p-value of the exact paired permutation test of margins per image.

    Under the null hypothesis either sign of each margin is equally likely, and p is the
    probability that sum e_i |m_i| with signs e_i = +-1 of probability 1/2 is at least as far
    from 0 as sum m_i. For margins of -1, 0 and 1, which is one seed, that is McNemar's test
    (1947) in its exact, binomial form: for 1 won and 5 lost of 6, 2 (1 + 6) / 2^6 = 0.21875.
    Without a margin it is 1.
    """
    sizes = Counter(abs(margin) for margin in margins if margin)
    total = abs(sum(margins))
    if len(sizes) == 1:
        ((size, pairs),) = sizes.items()
        return _binomial_test(pairs, (pairs * size - total) // (2 * size))
    return _convolved_test(sizes, total)


def _binomial_test(pairs: int, fewer: int) -> float:
    """Return min(1, 2 P(X <= fewer)) for X ~ Binomial(pairs, 1/2), in integer arithmetic."""
    ways = term = 1
    for k in range(fewer):
        term = term * (pairs - k) // (k + 1)
        ways += term
    p: float = ways / 2 ** (pairs - 1)
    return min(1.0, p)


def _convolved_test(sizes: Counter[int], total: int) -> float:
    """Return P(|S| >= total) for the sum S of terms +-size, `sizes[size]` of each size.

    It is accurate to SMALLEST, and never smaller.
    """
    import numpy as np

    reach = sum(size * count for size, count in sizes.items())
    # A power of two: transforms of other lengths take ten times as long.
    length = 1 << (2 * reach).bit_length()
    transform = np.ones(length // 2 + 1, dtype=complex)
    for size, count in sizes.items():
        logs = [
            math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            for k in range(count + 1)
        ]
        spaced = np.zeros(length)  # of size (2 k - count) at 2 size k
        spaced[: 2 * size * count + 1 : 2 * size] = np.exp(np.array(logs) - count * math.log(2))
        transform *= np.fft.rfft(spaced)
    distribution = np.fft.irfft(transform, length)[: 2 * reach + 1]  # of S, from -reach to reach
    far = abs(np.arange(-reach, reach + 1)) >= total
    return min(1.0, max(SMALLEST, float(distribution[far].sum())))
