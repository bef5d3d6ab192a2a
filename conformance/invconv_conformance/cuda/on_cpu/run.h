// How blocks of threads run on a CPU: `threads.cpp` or `fibers.cpp`.
#pragma once
#include <cstdlib>
#include <cstring>
#include <functional>

using Kernel = std::function<void()>;

// Run a grid of blocks, the last one first, at most `resident` at a time. Shared memory holds no
// number at first. What goes wrong ends the process: see `Failure`. Fibers tell how many rounds it
// took in which each of them ran once; threads tell 0.
long launch(int blocks, int threads, size_t shared, int resident, const Kernel& kernel);

// Memory that holds no number yet: NaN.
inline void* filled(size_t bytes) { return memset(malloc(bytes), 0xff, bytes); }

enum Failure { FOREVER = 3, DIVERGED = 4 };  // exit codes
[[noreturn]] void fail(Failure failure);
