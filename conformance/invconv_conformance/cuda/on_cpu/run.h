// How blocks of threads run on a CPU (`fibers.cpp`).
#pragma once
#include <functional>
#include <vector>

using Kernel = std::function<void()>;

// Run a grid of blocks, the last one first, at most `resident` at a time. Shared memory holds no
// number at first. What goes wrong ends the process: see `Failure`. Returns how many rounds it took
// in which each thread ran once.
long launch(int blocks, int threads, size_t shared, int resident, const Kernel& kernel);

using Bytes = std::vector<unsigned char>;
constexpr unsigned char NO_NUMBER = 0xff;  // NaN, eight or four times

enum Failure { FOREVER = 3, DIVERGED = 4 };  // exit codes
[[noreturn]] void fail(Failure failure);
