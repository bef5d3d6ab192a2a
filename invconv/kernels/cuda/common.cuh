// What both sources share: the words of CUDA, the constants, the arguments, and how units of work
// wait for each other.
//
// Constants are those of `invconv.kernels.cuda.plan`. The text is also compiled for a CPU, where
// every barrier, wait and memory order in it is spoilt in turn (`invconv_conformance.cuda`).
#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1)
#define DEVICE __device__ inline
#define SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#define LOAD(order, p, value) \
  asm volatile("ld." order ".s32 %0, [%1];" : "=r"(value) : "l"(p) : "memory")
#define STORE(order, p, value) \
  asm volatile("st." order ".s32 [%0], %1;" ::"l"(p), "r"(value) : "memory")
#else
#include "cuda_on_cpu.h"
#endif

constexpr int C = CHANNELS, SQUARE = C * C, TAPS = CROSS + PLANE;  // D is not among the taps
constexpr int STEEP = SLOPE > 0 ? SLOPE : 1;
constexpr int LEVELS_DONE = 1 << 29, ALL_DONE = 1 << 30;   // what a unit's progress says at last
constexpr int UNROLLED = KEPT || C <= 24 ? C : 4;          // channels in a row
constexpr int TAPS_UNROLLED = KEPT ? PLANE : 1;
constexpr int APART = KEPT ? 1 : C;                        // weights of taps within a plane

struct Grid {           // all int, in the order of `invconv.kernels.cuda.plan.GRID`
  int extent[4];        // of an image
  int step[4];          // numbers in memory from a pixel to the next that a tap reads, signed
  int dilation[4];
  int pitch;            // records from a row to the next in shared memory
  int rows, bands;      // rows of a band, bands of a plane
  int images;           // the batch times the residue classes of a plane
  int chunk;            // levels between two looks at what the band above has done
  int lower;            // whether D is lower triangular
};

struct Offset { int axis[4]; };
struct alignas(VECTOR * sizeof(REAL)) Vector { REAL at[VECTOR]; };

DEVICE Offset reach(int t) {  // of tap t + 1: how far back it reads, in taps
  static constexpr Offset offsets[] = {REACH};
  return offsets[t];
}

// Weights: W_t[k, o] of all taps; D; whether D is to be solved with; |D^-1| and |D| of each column.
constexpr int DIAGONAL = (1 + TAPS) * SQUARE, FLAG = DIAGONAL + SQUARE, NORMS = FLAG + 1;

DEVICE void wait(const int* progress, int until) {
  int seen;
  do LOAD("acquire.gpu", progress, seen);
  while (seen < until);
}

DEVICE void publish(int* progress, int done) { STORE("release.gpu", progress, done); }
