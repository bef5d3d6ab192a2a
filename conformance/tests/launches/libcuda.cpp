// A CUDA driver for tests, whose devices are this processor. It is as strict as the real one about
// contexts and shared memory; a library's code is the path of a shared object of `kernels.cpp`.
#include <dlfcn.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace {
enum { OK = 0, INVALID = 1, NOT_INITIALIZED = 3, NO_DEVICE = 101, NO_CONTEXT = 201, NOT_FOUND = 500,
       CAPTURING = 900, RELAXED = 2 };
constexpr int DEVICES = 2, ALLOWED_BEFORE = 48 * 1024;
constexpr uintptr_t CONTEXT = 0xc0000;

using Run = int (*)(const char*, unsigned, unsigned, unsigned, void**);
using Look = int (*)(const char*, int, unsigned, unsigned, unsigned, void*, void**);

struct Kernel {
  std::string name;
  Run run;
  std::map<int, int> shared;
  std::set<int> loaded;  // the devices
};

bool initialized = false, captures = false;
thread_local int mode = 0;  // of captures: global
Look look = nullptr;
std::set<void*> kernels;
thread_local std::vector<void*> contexts;
std::atomic<int> current{0};  // contexts of all threads
std::map<int, int> attributes{{16, 132}, {75, 9}, {76, 0}, {97, 227 * 1024}};
}  // namespace

extern "C" {
// What sees each launch first, and returns whether it is to run.
void stand_in_look(Look function) { look = function; }
void stand_in_attribute(int number, int value) { attributes[number] = value; }
// A stream is captured in a graph: then nothing is loaded, but by threads in relaxed mode.
void stand_in_capture(bool capture) { captures = capture; }
bool forbidden() { return captures && mode != RELAXED; }
int stand_in_contexts() { return current; }
int stand_in_mode() { return mode; }

int cuInit(unsigned flags) {
  initialized = true;
  return flags ? INVALID : OK;
}

int cuDriverGetVersion(int* version) {
  *version = 12080;
  return OK;
}

int cuGetErrorString(int code, const char** text) {
  *text = code == INVALID ? "invalid argument" : nullptr;
  return *text ? OK : INVALID;
}

int cuDeviceGet(int* device, int ordinal) {
  if (!initialized) return NOT_INITIALIZED;
  *device = ordinal;
  return ordinal >= 0 && ordinal < DEVICES ? OK : NO_DEVICE;
}

int cuDeviceGetAttribute(int* value, int number, int device) {
  if (!attributes.count(number) || device >= DEVICES) return INVALID;
  *value = attributes[number];
  return OK;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = (void*)(CONTEXT + device);
  return OK;
}

int cuCtxPushCurrent_v2(void* context) {
  const uintptr_t device = (uintptr_t)context - CONTEXT;
  if (device >= DEVICES) return NO_CONTEXT;
  contexts.push_back(context);
  current++;
  return OK;
}

int cuCtxPopCurrent_v2(void** context) {
  if (contexts.empty()) return NO_CONTEXT;
  *context = contexts.back();
  contexts.pop_back();
  current--;
  return OK;
}

// the last bit of a stream's handle is the number of its device
int cuStreamGetCtx(void* stream, void** context) {
  *context = (void*)(CONTEXT + ((uintptr_t)stream & 1));
  return stream ? OK : CAPTURING;
}

int cuMemsetD32Async(void* start, unsigned value, size_t count, void* stream) {
  if (contexts.empty() || (uintptr_t)contexts.back() - CONTEXT != ((uintptr_t)stream & 1))
    return NO_CONTEXT;
  for (size_t i = 0; i < count; i++) ((unsigned*)start)[i] = value;
  return OK;
}

int cuLibraryLoadData(void** library, const void* code, void*, void*, unsigned a, void*, void*,
                      unsigned b) {
  if (forbidden()) return CAPTURING;
  if (a || b) return INVALID;
  *library = dlopen((const char*)code, RTLD_NOW | RTLD_LOCAL);
  return *library ? OK : INVALID;
}

int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  if (!dlsym(library, name)) return NOT_FOUND;
  *kernel = new Kernel{name, (Run)dlsym(library, "run"), {}, {}};
  kernels.insert(*kernel);
  return OK;
}

int cuKernelGetFunction(void** function, void* kernel) {
  if (forbidden()) return CAPTURING;
  if (contexts.empty()) return NO_CONTEXT;
  if (!kernels.count(kernel)) return INVALID;
  *function = kernel;
  ((Kernel*)kernel)->loaded.insert((uintptr_t)contexts.back() - CONTEXT);
  return OK;
}

int cuThreadExchangeStreamCaptureMode(int* given) {
  const int before = mode;
  mode = *given;
  *given = before;
  return OK;
}

int cuKernelSetAttribute(int attribute, int value, void* kernel, int device) {
  if (attribute != 8 || !kernels.count(kernel) || value > attributes[97]) return INVALID;
  ((Kernel*)kernel)->shared[device] = value;
  return OK;
}

int cuLaunchKernel(void* function, unsigned blocks, unsigned y, unsigned z, unsigned threads,
                   unsigned v, unsigned w, unsigned shared, void* stream, void** arguments,
                   void** extra) {
  if (contexts.empty()) return NO_CONTEXT;
  if (!kernels.count(function) || extra || y * z * v * w != 1) return INVALID;
  Kernel& kernel = *(Kernel*)function;
  const int device = (uintptr_t)contexts.back() - CONTEXT;
  const int allowed = kernel.shared.count(device) ? kernel.shared[device] : ALLOWED_BEFORE;
  if (!blocks || !threads || threads > 1024 || shared > (unsigned)allowed) return INVALID;
  if (threads % 32) return INVALID;  // which a device would take: a plan has whole warps
  if (captures && !kernel.loaded.count(device)) return CAPTURING;  // the launch would load it
  const char* name = kernel.name.c_str();
  if (look && !look(name, device, blocks, threads, shared, stream, arguments)) return OK;
  return kernel.run(name, blocks, threads, shared, arguments);
}
}
