// Run the kernels on jobs from a file, and write weights and results to another one.
//
// A job: integers of 64 bits (`Job`), the structs of "fold" and "solve", the matrices, y.
// Every array has an allocation of its own, no byte larger than planned; results begin as NaN.
#include <cstdint>
#include <cstdio>
#include <unistd.h>

#include "run.h"

struct Grid { int numbers[18]; };
extern "C" void fold(const void* matrices, void* weights, Grid grid);
extern "C" void decide(const void* matrices, void* weights, Grid grid);
extern "C" void solve(const void* y, void* x, const void* weights, int* counters, Grid grid);

struct Job {
  int64_t resident, matrices, weights, images;  // bytes
  int64_t fold[2], decide[2], solve[2];         // blocks, threads
  int64_t shared, counters;                     // bytes, how many
};

[[noreturn]] void fail(Failure failure) { _exit(failure); }

int main(int, char** arguments) {
  FILE* in = fopen(arguments[1], "rb");
  FILE* out = fopen(arguments[2], "wb");
  if (!in || !out) return 1;
  Job job;
  Grid grids[2];
  while (fread(&job, sizeof job, 1, in) == 1) {
    Bytes given(job.matrices), y(job.images);
    Bytes weights(job.weights, NO_NUMBER), x(job.images, NO_NUMBER);
    std::vector<int> counters(job.counters);
    if (fread(grids, sizeof grids, 1, in) != 1) return 1;
    if (fread(given.data(), 1, given.size(), in) != given.size()) return 1;
    if (fread(y.data(), 1, y.size(), in) != y.size()) return 1;
    void* w = weights.data();
    launch(job.fold[0], job.fold[1], 0, 1, [&] { fold(given.data(), w, grids[0]); });
    launch(job.decide[0], job.decide[1], 0, 1, [&] { decide(given.data(), w, grids[0]); });
    const int64_t rounds = launch(job.solve[0], job.solve[1], job.shared, job.resident,
           [&] { solve(y.data(), x.data(), w, counters.data(), grids[1]); });
    fwrite(&rounds, sizeof rounds, 1, out);
    fwrite(w, 1, weights.size(), out);
    fwrite(x.data(), 1, x.size(), out);
  }
  return fclose(out);
}
