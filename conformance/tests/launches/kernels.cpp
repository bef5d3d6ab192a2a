// The kernels of a library for `libcuda.cpp`: called with what a launch has.
#include <cstdio>
#include <string>

#include <unistd.h>

#include "run.h"

struct Grid { int numbers[18]; };
extern "C" void fold(const void* matrices, void* weights, Grid grid);
extern "C" void decide(const void* matrices, void* weights, Grid grid);
extern "C" void solve(const void* y, void* x, const void* weights, int* counters, Grid grid);

[[noreturn]] void fail(Failure failure) {
  fprintf(stderr, "the kernel %s\n", failure == FOREVER ? "waits for ever" : "diverges");
  _exit(failure);
}

template <class T>
static T& argument(void** arguments, int place) { return *(T*)arguments[place]; }

extern "C" int run(const char* kernel, unsigned blocks, unsigned threads,
                   unsigned shared, void** given) {
  const std::string name = kernel;
  if (name == "solve") {
    launch(blocks, threads, shared, 2, [&] {
      solve(argument<void*>(given, 0), argument<void*>(given, 1), argument<void*>(given, 2),
            argument<int*>(given, 3), argument<Grid>(given, 4));
    });
  } else {
    const auto weigh = name == "fold" ? fold : decide;
    launch(blocks, threads, shared, 1, [&] {
      weigh(argument<void*>(given, 0), argument<void*>(given, 1), argument<Grid>(given, 2));
    });
  }
  return 0;
}
