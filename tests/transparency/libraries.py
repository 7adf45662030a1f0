"""The libraries whose own tests have to pass with every function decorated, and what is known not to."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Why a test may differ: it cannot be helped by any wrapper that is written in Python.
CALLERS_FRAME = "the function asks `sys._getframe(1)` who has called it, which is the wrapper"


@dataclass(frozen=True)
class Library:
    """A pure-Python library, as its source distribution on the package index has it.

    Args:
        name: on the index.
        version: the one that is taken.
        sha256: of the source distribution.
        packages: the import packages whose functions are decorated.
        source: the folder in the distribution that they lie in.
        unrecorded: tests, by parts of their node ids, that make so many calls that recording each takes minutes and
            gigabytes: they run decorated, in mode `disabled`.
        left_out: tests, by their node ids, that make millions of the same calls, which take longer than all other tests
            and show no more than they do.
        differing: tests, by their names, that pass undecorated only, with the reason.
    """

    name: str
    version: str
    sha256: str
    packages: tuple[str, ...]
    source: str = "."
    unrecorded: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    differing: dict[str, str] = field(default_factory=dict)


LIBRARIES = (
    Library(
        "toolz",
        "1.0.0",
        "2c86e3d9a04798ac556793bced838816296a2f085017664e4995cb40a1047a02",
        ("toolz", "tlz"),
    ),
    Library(
        "more-itertools",
        "11.2.1",
        "cbf08fd0af284dc69718b9b76a8e6203df624d70209ea511e4219d350c856f63",
        ("more_itertools",),
        unrecorded=(
            "::PrimeFunctionTests::",
            "::ExtractTests::test_all_orderings",
            "::TestConcurrentTee::test_concurrent_consumers",
            "::PolynomialFromRootsTests::test_large",
            "::TestSerialize::test_concurrent_calls",
            "::TestRandomOrderedRange::test_lcg_mitigation",
        ),
        left_out=(
            "tests/test_recipes.py::PrimeFunctionTests::test_primes",
            "tests/test_recipes.py::PrimeFunctionTests::test_nth_prime_approximate",
            "tests/test_more.py::DiscreteFourierTransformTests::test_roundtrip",
            "tests/test_more.py::SeekableTest::test_repeated_zero_cache_peek_has_bounded_memory",
        ),
    ),
    Library(
        "boltons",
        "26.2.0",
        "d39cfd15c1a1c3bd4d705c82252fa9edb8e4f5e8cc039f8e39afac7b1b47e92c",
        ("boltons",),
        differing={
            "test_namedlist_pickle": CALLERS_FRAME,
            "test_namedtuple_pickle": CALLERS_FRAME,
            "test_sentinel_pickle": CALLERS_FRAME,
            "test_contextual": CALLERS_FRAME,
        },
        left_out=(
            "tests/test_setutils.py::test_iset_slice_agreement",
            "tests/test_socketutils.py::test_socketutils_netstring",
        ),
    ),
    Library(
        "cachetools",
        "8.0.1",
        "deb1d376d4d28c2f33f3e3058043b005e0af75c35c094bd54053e27d2906ad95",
        ("cachetools",),
        source="src",
        unrecorded=("::test_lfu_copy_use_counts",),
        # The other caches have the same three tests.
        left_out=tuple(
            f"tests/test_{name.lower()}.py::{name}CacheTest::test_{way}_maxsize"
            for name in ("LRU", "TLRU", "TTL")
            for way in ("copy", "deepcopy", "pickle")
        ),
    ),
)
