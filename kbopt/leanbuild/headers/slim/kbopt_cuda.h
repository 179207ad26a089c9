// CUDA streams, guards and checks over the bridge.
#pragma once

#include <cuda_runtime.h>

#include "kbopt_tensor.h"

namespace c10 {
namespace cuda {
inline namespace kbopt_slim {
class CUDAStream {
 public:
  explicit CUDAStream(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}
  operator cudaStream_t() const { return stream_; }
  cudaStream_t stream() const { return stream_; }

 private:
  cudaStream_t stream_;
};
inline CUDAStream getCurrentCUDAStream(DeviceIndex device = -1) { return CUDAStream(kb_current_cuda_stream(device)); }
inline CUDAStream getDefaultCUDAStream(DeviceIndex device = -1) { return CUDAStream(kb_default_cuda_stream(device)); }
inline DeviceIndex current_device() { return kb_current_cuda_device(); }
inline DeviceIndex device_count() { return kb_cuda_device_count(); }
inline void set_device(DeviceIndex device) { kb_set_cuda_device(device); }

class CUDAGuard {
 public:
  explicit CUDAGuard(DeviceIndex device) : original_(current_device()) { set_device(device); }
  explicit CUDAGuard(Device device) : CUDAGuard(checked(device)) {}
  ~CUDAGuard() { set_device(original_); }
  CUDAGuard(const CUDAGuard&) = delete;
  CUDAGuard& operator=(const CUDAGuard&) = delete;

 private:
  static DeviceIndex checked(const Device& device) {
    TORCH_CHECK(device.is_cuda(), "Expected a CUDA device, but got ", device);
    return device.has_index() ? device.index() : current_device();
  }
  DeviceIndex original_;
};

class OptionalCUDAGuard {
 public:
  OptionalCUDAGuard() = default;
  explicit OptionalCUDAGuard(std::optional<Device> device) {
    if (device) guard_.emplace(*device);
  }

 private:
  std::optional<CUDAGuard> guard_;
};
} // namespace kbopt_slim
} // namespace cuda
inline namespace kbopt_slim {
inline std::optional<Device> device_of(const at::Tensor& t) {
  return t.defined() ? std::optional<Device>(t.device()) : std::nullopt;
}
} // namespace kbopt_slim
} // namespace c10

namespace at {
using c10::device_of;
namespace cuda {
using c10::cuda::CUDAGuard, c10::cuda::CUDAStream, c10::cuda::current_device, c10::cuda::getCurrentCUDAStream,
    c10::cuda::getDefaultCUDAStream, c10::cuda::OptionalCUDAGuard;
} // namespace cuda
} // namespace at

#define C10_CUDA_CHECK(EXPR)                                                                  \
  do {                                                                                        \
    const cudaError_t kbopt_error = EXPR;                                                     \
    ::kb_cuda_check(static_cast<int32_t>(kbopt_error), __FILE__, __func__,                    \
                    static_cast<uint32_t>(__LINE__));                                         \
  } while (0)
#define AT_CUDA_CHECK(EXPR) C10_CUDA_CHECK(EXPR)
#define C10_CUDA_KERNEL_LAUNCH_CHECK() C10_CUDA_CHECK(cudaGetLastError())
