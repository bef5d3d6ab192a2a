// A real thread for each CUDA thread: ThreadSanitizer sees what a device could do in any order,
// AddressSanitizer the edges.
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <ctime>
#include <thread>

#include "cuda_on_cpu.h"
#include "run.h"

namespace {
constexpr int PATIENCE = 5;  // seconds in which nothing happens, after which nothing will
constexpr int NAP = 2000;    // microseconds

struct Block {
  // Two barriers in turn: a thread that leaves late would else seem to have waited for what faster
  // ones did before they entered the next, and ThreadSanitizer would miss races.
  pthread_barrier_t barriers[2];
  Bytes memory;
};

thread_local Block* block;
thread_local unsigned passed;
std::atomic<time_t> last_seen{0};  // when a block began, or a thread published or met others

void alive() { last_seen.store(time(nullptr), std::memory_order_relaxed); }

void watch() {
  for (alive();; usleep(100'000)) {
    const time_t quiet = time(nullptr) - last_seen.load(std::memory_order_relaxed);
    if (quiet > PATIENCE) fail(FOREVER);
  }
}

bool across_blocks(const char* order, const char* word) {  // not what one block alone sees
  return strstr(order, word) == order && strstr(order, ".gpu");
}
}  // namespace

unsigned char* shared_memory() { return block->memory.data(); }

void barrier_at(int) {
  alive();
  pthread_barrier_wait(&block->barriers[passed++ % 2]);
}

int load_in_order(const char* order, const int* p) {
  sched_yield();
  return across_blocks(order, "acquire") ? __atomic_load_n(p, __ATOMIC_ACQUIRE)
                                         : __atomic_load_n(p, __ATOMIC_RELAXED);
}

void store_in_order(const char* order, int* p, int value) {
  alive();
  if (across_blocks(order, "release"))
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
  else
    __atomic_store_n(p, value, __ATOMIC_RELAXED);
  usleep(NAP);  // so that others run with no more than was promised
}

int atomicAdd(int* p, int value) { return __atomic_fetch_add(p, value, __ATOMIC_RELAXED); }

long launch(int blocks, int threads, size_t shared, int resident, const Kernel& kernel) {
  static std::thread watching(watch);
  if (watching.joinable()) watching.detach();
  gridDim.x = blocks;
  std::atomic<int> next{blocks};
  std::vector<std::thread> processors;
  for (int s = 0; s < resident; s++)
    processors.emplace_back([&] {
      for (int b; (b = --next) >= 0;) {
        Block here{{}, Bytes(shared, NO_NUMBER)};
        alive();
        for (auto& barrier : here.barriers) pthread_barrier_init(&barrier, nullptr, threads);
        std::vector<std::thread> team;
        for (int t = 0; t < threads; t++)
          team.emplace_back([&, t] {
            threadIdx.x = t, blockIdx.x = b, blockDim.x = threads, block = &here, passed = 0;
            kernel();
          });
        for (auto& thread : team) thread.join();
        for (auto& barrier : here.barriers) pthread_barrier_destroy(&barrier);
      }
    });
  for (auto& processor : processors) processor.join();
  return 0;
}
