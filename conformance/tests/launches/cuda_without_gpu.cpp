// To PyTorch there is one CUDA device, whose guards and streams do nothing: autograd then runs on
// fake CUDA tensors, in builds without CUDA too. Loaded before PyTorch, by `waits`.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {
const c10::Device FIRST(c10::DeviceType::CUDA, 0);
const c10::Stream DEFAULT(c10::Stream::DEFAULT, FIRST);

struct Guard : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device exchangeDevice(c10::Device) const override { return FIRST; }
  c10::Device getDevice() const override { return FIRST; }
  c10::Stream getStream(c10::Device) const noexcept override { return DEFAULT; }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return DEFAULT; }
};

struct CUDAHooks : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool hasCUDA() const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return 1; }
};

c10::impl::DeviceGuardImplRegistrar guard(c10::DeviceType::CUDA, new Guard);
}  // namespace

namespace at {
REGISTER_CUDA_HOOKS(CUDAHooks)
}
