// CUDA's threads as fibers of one thread: fast, and the same order of events every time.
//
// A fiber runs until a barrier or a look at another block's progress. Threads of a block that meet
// at different barriers, or wait for what never comes, end the process.
#include <ucontext.h>

#include <memory>

#include "cuda_on_cpu.h"
#include "run.h"

namespace {
constexpr size_t STACK = 64 * 1024;
constexpr int PATIENCE = 2000;  // rounds in which all wait, after which they wait for ever
enum class State { ready, waiting, at_barrier, ended };

struct Block;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK]};
  State state = State::ready;
  int line = 0;
};

struct Block {
  int number;
  std::vector<Fiber> fibers;
  Bytes memory;
  Block(int number, int threads, size_t shared, const Kernel& kernel);
  bool run(bool backwards);  // whether anything happened
  bool ended() const;
};

ucontext_t scheduler;
Fiber* running;
Block* block;
const Kernel* task;
bool published;

void enter() {
  (*task)();
  running->state = State::ended;
}

void pause(State state) {
  Fiber* mine = running;
  mine->state = state;
  const Dim thread = threadIdx, here = blockIdx, dim = blockDim;
  swapcontext(&mine->context, &scheduler);
  threadIdx = thread, blockIdx = here, blockDim = dim;
}

Block::Block(int number, int threads, size_t shared, const Kernel& kernel)
    : number(number), fibers(threads), memory(shared, NO_NUMBER) {
  task = &kernel;
  for (auto& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, enter, 0);
  }
}

bool Block::ended() const {
  for (auto& fiber : fibers)
    if (fiber.state != State::ended) return false;
  return true;
}

bool Block::run(bool backwards) {
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
}  // namespace

unsigned char* shared_memory() { return block->memory.data(); }

void barrier_at(int line) {
  running->line = line;
  pause(State::at_barrier);
}

int load_in_order(const char*, const int* p) {
  pause(State::waiting);
  return *(volatile const int*)p;
}

void store_in_order(const char*, int* p, int value) {
  published = true;
  *p = value;
}

int atomicAdd(int* p, int value) {
  const int before = *p;
  *p += value;
  return before;
}

long launch(int blocks, int threads, size_t shared, int resident, const Kernel& kernel) {
  std::vector<std::unique_ptr<Block>> at_work;
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
    for (size_t i = at_work.size(); i-- > 0;)
      if (at_work[i]->ended()) at_work.erase(at_work.begin() + i);
  }
  return round;
}
