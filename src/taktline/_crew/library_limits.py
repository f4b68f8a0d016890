"""What a worker's libraries may take: one thread each, and free memory that stays at hand. A launched worker finds it in
its environment; in one that is forked they have looked there long ago, so the same is set by call."""

from __future__ import annotations

import os
import re
import sys

# Thread pools of numeric libraries, one in each worker, would fight for the cores. The first rules the others, where
# the user has set it and not them.
ONE_THREAD = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
# What glibc gives back to the system costs page faults when it is wanted again, at each record that makes arrays of some
# 100 KB: such steps were measured up to 8 times as fast without (2 cores, glibc 2.36). It keeps as much by itself once it
# has seen chunks of 32 MB.
KEPT = 32 << 20  # bytes
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(KEPT), "MALLOC_TRIM_THRESHOLD_": str(KEPT)}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # numbers of mallopt(3)
# By the name of the variable that rules them: libraries, as part of a file's name, and their functions that set the number
# of threads. Which of these names a library has depends on how it was built.
POOLS = {
    "OPENBLAS_NUM_THREADS": (
        "openblas",
        ("openblas_set_num_threads", "openblas_set_num_threads64_", "openblas_set_num_threads_64_",
         "scipy_openblas_set_num_threads", "scipy_openblas_set_num_threads64_"),
    ),
    "MKL_NUM_THREADS": ("mkl_rt", ("MKL_Set_Num_Threads",)),
    "OMP_NUM_THREADS": ("omp", ("omp_set_num_threads",)),  # libgomp, libomp, libiomp5
}  # fmt: skip


def environment() -> dict[str, str]:
    """The environment that a launched worker starts with: this process's own, and what is better there."""
    return {**os.environ, **one_thread(), **_kept_memory()}


def one_thread() -> dict[str, str]:
    """What to add to an environment that says how many threads libraries have; the user's own settings win."""
    if ONE_THREAD[0] in os.environ:
        return {}
    return {name: "1" for name in ONE_THREAD if name not in os.environ}


def set_by_call() -> None:
    """Give the libraries that this process has loaded, and those that it will load, one thread each."""
    keep_memory()
    threads = one_thread()
    os.environ.update(threads)
    if sys.platform != "linux" or not threads:
        return
    import ctypes

    loaded = _loaded() if threads else ()
    for name, (part, setters) in POOLS.items():
        for path in loaded if name in threads else ():
            if part not in os.path.basename(path):
                continue
            library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
            for setter in setters:
                if (function := getattr(library, setter, None)) is not None:
                    function(1)


def keep_memory() -> None:
    """Have this process keep some of the memory that it has freed."""
    if sys.platform != "linux" or not _kept_memory():
        return
    import ctypes

    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)


def _loaded() -> set[str]:
    """The files of numeric libraries in this process's memory that are still where they were loaded from."""
    with open("/proc/self/maps", errors="surrogateescape") as file:
        found = re.findall(r"/.*/[^/\n]*(?:openblas|mkl_rt|omp)[^/\n]*\.so[^/\n]*$", file.read(), re.MULTILINE)
    return {path for path in set(found) if os.path.exists(path)}


def _kept_memory() -> dict[str, str]:
    """What to add that says how much free memory is kept; settings for this allocator, or for another one, win."""
    own = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    return {} if any(name.startswith(own) for name in os.environ) else MEMORY
