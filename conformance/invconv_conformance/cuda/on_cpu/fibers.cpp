// CUDA's threads as fibers of one thread: fast, and the same order of events every time.
//
// A fiber runs until a barrier or a look at another block's progress. Threads of a block that meet
// at different barriers, or wait for what never comes, end the process. ThreadSanitizer takes a
// fiber for a thread, which has seen of others what barriers and orders of memory promise it.
#include <ucontext.h>

#include <cstring>
#include <memory>

#include "cuda_on_cpu.h"
#include "run.h"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreWritesBegin(const char*, int);
extern "C" void AnnotateIgnoreWritesEnd(const char*, int);
#define TELL(call) call
#else
#define TELL(call)
#endif
#define OURS __attribute__((no_sanitize("thread")))  // what all fibers share is no race of theirs

namespace {
constexpr size_t STACK = 256 * 1024;
constexpr int PATIENCE = 2000;  // rounds in which all wait, after which they wait for ever
[[maybe_unused]] constexpr int NAP = 100;  // rounds
enum class State { ready, waiting, at_barrier, ended };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK]};
  State state = State::ready;
  int line = 0;
  bool odd = false;           // the barrier that it meets next
  void* sanitizer = nullptr;  // what ThreadSanitizer knows it by
  ~Fiber() { TELL(__tsan_destroy_fiber(sanitizer)); }
};

struct Block {
  int number;
  std::vector<Fiber> fibers;
  Bytes memory;
  // Two barriers in turn: a fiber that leaves late would else seem to have waited for what faster
  // ones did before they entered the next, and ThreadSanitizer would miss races.
  char barriers[2];
  Block(int number, int threads, size_t shared, const Kernel& kernel);
  bool run(bool backwards);  // whether anything happened
  bool ended() const;
};

ucontext_t scheduler;
[[maybe_unused]] void* scheduling;
char all_ended;  // for ThreadSanitizer, as a barrier is
Fiber* running;
Block* block;
const Kernel* task;
bool published;

OURS void pause(State state) {
  Fiber* mine = running;
  mine->state = state;
  TELL(__tsan_switch_to_fiber(scheduling, __tsan_switch_to_fiber_no_sync));
  swapcontext(&mine->context, &scheduler);
}

OURS void enter() {
  (*task)();
  TELL(__tsan_release(&all_ended));
  pause(State::ended);
}

Block::Block(int number, int threads, size_t shared, const Kernel& kernel)
    : number(number), fibers(threads), memory(shared, NO_NUMBER) {
  task = &kernel;
  for (auto& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    makecontext(&fiber.context, enter, 0);
    TELL(fiber.sanitizer = __tsan_create_fiber(0));
  }
}

bool Block::ended() const {
  for (auto& fiber : fibers)
    if (fiber.state != State::ended) return false;
  return true;
}

OURS bool Block::run(bool backwards) {
  const int threads = fibers.size();
  bool happened = false;
  int arrived = 0, line = 0;
  for (int n = 0; n < threads; n++) {
    const int t = backwards ? threads - 1 - n : n;
    Fiber& fiber = fibers[t];
    if (fiber.state == State::ready || fiber.state == State::waiting) {
      happened |= fiber.state == State::ready;
      running = &fiber, block = this;
      threadIdx.x = t, blockIdx.x = number, blockDim.x = threads;
      TELL(__tsan_switch_to_fiber(fiber.sanitizer, __tsan_switch_to_fiber_no_sync));
      swapcontext(&scheduler, &fiber.context);
    }
    if (fiber.state == State::at_barrier) {
      if (arrived++ > 0 && line != fiber.line) fail(DIVERGED);
      line = fiber.line;
    }
  }
  if (arrived == threads)
    for (auto& fiber : fibers) fiber.state = State::ready;
  else if (arrived > 0)
    for (auto& fiber : fibers)
      if (fiber.state == State::ended) fail(DIVERGED);
  return happened;
}

bool across_blocks(const char* order, const char* word) {  // not what one block alone sees
  return strstr(order, word) == order && strstr(order, ".gpu");
}
}  // namespace

OURS unsigned char* shared_memory() { return block->memory.data(); }

OURS void barrier_at(int line) {
  [[maybe_unused]] char* mine = &block->barriers[running->odd ^= true];
  running->line = line;
  TELL(__tsan_release(mine));
  pause(State::at_barrier);
  TELL(__tsan_acquire(mine));
}

int load_in_order(const char* order, const int* p) {
  pause(State::waiting);
  return across_blocks(order, "acquire") ? __atomic_load_n(p, __ATOMIC_ACQUIRE)
                                         : __atomic_load_n(p, __ATOMIC_RELAXED);
}

OURS void note() { published = true; }

void store_in_order(const char* order, int* p, int value) {
  note();
  if (across_blocks(order, "release"))
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
  else
    __atomic_store_n(p, value, __ATOMIC_RELAXED);
  // so that others run with no more than was promised
  TELL(for (int round = 0; round < NAP; round++) pause(State::waiting));
}

int atomicAdd(int* p, int value) { return __atomic_fetch_add(p, value, __ATOMIC_RELAXED); }

OURS long launch(int blocks, int threads, size_t shared, int resident, const Kernel& kernel) {
  std::vector<std::unique_ptr<Block>> at_work;
  TELL(scheduling = __tsan_get_current_fiber());
  gridDim.x = blocks;
  int next = blocks, idle = 0;
  long round = 0;
  for (; next > 0 || !at_work.empty(); round++) {
    while (next > 0 && (int)at_work.size() < resident)
      at_work.push_back(std::make_unique<Block>(--next, threads, shared, kernel));
    published = false;
    bool happened = false;
    for (size_t i = 0; i < at_work.size(); i++) happened |= at_work[i]->run(round % 2);
    idle = happened || published ? 0 : idle + 1;
    if (idle > PATIENCE) fail(FOREVER);
    TELL(AnnotateIgnoreWritesBegin(__FILE__, __LINE__));  // the next blocks wait for none of these
    for (size_t i = at_work.size(); i-- > 0;)
      if (at_work[i]->ended()) at_work.erase(at_work.begin() + i);
    TELL(AnnotateIgnoreWritesEnd(__FILE__, __LINE__));
  }
  TELL(__tsan_acquire(&all_ended));
  return round;
}
