// Sources: CUDA driver API, "Virtual Memory Management"; the driver's functions come through the runtime, so that
// nothing links the driver's library.
#include "kernels/peer/peer_memory.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernels/base/cuda_check.h"
#include "kernels/base/device.h"
#include "kernels/base/rounding.h"

namespace lorikeet::kernels {
namespace {

constexpr unsigned kDriverVersion = 11030;  // whose meaning of the functions is used here

template <class Function>
Function* driver_function(const char* name) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &entry, kDriverVersion, cudaEnableDefault, &found);
  if (status == cudaSuccess && found == cudaDriverEntryPointSuccess) return reinterpret_cast<Function*>(entry);
  cudaGetLastError();
  return nullptr;
}

struct Driver {
  decltype(&cuMemCreate) create = driver_function<decltype(cuMemCreate)>("cuMemCreate");
  decltype(&cuMemRelease) release = driver_function<decltype(cuMemRelease)>("cuMemRelease");
  decltype(&cuMemAddressReserve) reserve = driver_function<decltype(cuMemAddressReserve)>("cuMemAddressReserve");
  decltype(&cuMemAddressFree) free = driver_function<decltype(cuMemAddressFree)>("cuMemAddressFree");
  decltype(&cuMemMap) map = driver_function<decltype(cuMemMap)>("cuMemMap");
  decltype(&cuMemUnmap) unmap = driver_function<decltype(cuMemUnmap)>("cuMemUnmap");
  decltype(&cuMemSetAccess) allow = driver_function<decltype(cuMemSetAccess)>("cuMemSetAccess");
  decltype(&cuMemExportToShareableHandle) share =
      driver_function<decltype(cuMemExportToShareableHandle)>("cuMemExportToShareableHandle");
  decltype(&cuMemImportFromShareableHandle) attach =
      driver_function<decltype(cuMemImportFromShareableHandle)>("cuMemImportFromShareableHandle");
  decltype(&cuMemGetAllocationGranularity) granularity =
      driver_function<decltype(cuMemGetAllocationGranularity)>("cuMemGetAllocationGranularity");
  decltype(&cuGetErrorName) error_name = driver_function<decltype(cuGetErrorName)>("cuGetErrorName");

  bool complete() const {
    return create != nullptr && release != nullptr && reserve != nullptr && free != nullptr && map != nullptr &&
           unmap != nullptr && allow != nullptr && share != nullptr && attach != nullptr && granularity != nullptr &&
           error_name != nullptr;
  }
};

// The calling thread's device must have a context before the driver's functions are used.
Result<const Driver*> driver() {
  LORIKEET_CHECK_CUDA(cudaFree(nullptr));
  static const Driver functions;
  if (!functions.complete()) return fail("the driver has no memory that processes share");
  return &functions;
}

std::string name_of(const Driver& driver, CUresult result) {
  const char* name = nullptr;
  driver.error_name(result, &name);
  return name != nullptr ? name : std::to_string(static_cast<int>(result));
}

CUmemAllocationProp properties_of_memory() {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = current_device();
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  return properties;
}

Result<uint64_t> rounded_bytes(const Driver& driver, uint64_t bytes) {
  const CUmemAllocationProp properties = properties_of_memory();
  size_t granularity = 0;
  const CUresult result = driver.granularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
  if (result != CUDA_SUCCESS) return fail("memory for other processes: {}", name_of(driver, result));
  return round_up<uint64_t>(bytes, granularity);
}

}  // namespace

Result<PeerMemory> PeerMemory::make(uint64_t bytes) {
  const auto functions = driver();
  if (!functions) return tl::unexpected(functions.error());
  const auto rounded = rounded_bytes(**functions, bytes);
  if (!rounded) return tl::unexpected(rounded.error());
  const CUmemAllocationProp properties = properties_of_memory();
  CUmemGenericAllocationHandle handle{};
  const CUresult result = (*functions)->create(&handle, *rounded, &properties, 0);
  if (result != CUDA_SUCCESS) {
    return fail("{} bytes of memory for other processes cannot be had: {}", *rounded, name_of(**functions, result));
  }
  PeerMemory memory;
  memory.handle_ = handle;
  memory.bytes_ = *rounded;
  if (auto mapped = memory.map(); !mapped) return tl::unexpected(mapped.error());
  return memory;
}

Result<PeerMemory> PeerMemory::attach(const Descriptor& descriptor, uint64_t bytes) {
  const auto functions = driver();
  if (!functions) return tl::unexpected(functions.error());
  const auto rounded = rounded_bytes(**functions, bytes);
  if (!rounded) return tl::unexpected(rounded.error());
  CUmemGenericAllocationHandle handle{};
  // The descriptor travels as a pointer (CUDA driver API, cuMemImportFromShareableHandle).
  void* passed = reinterpret_cast<void*>(static_cast<intptr_t>(descriptor.get()));
  const CUresult result = (*functions)->attach(&handle, passed, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  if (result != CUDA_SUCCESS) {
    return fail("the memory of another process cannot be had: {}", name_of(**functions, result));
  }
  PeerMemory memory;
  memory.handle_ = handle;
  memory.bytes_ = *rounded;
  if (auto mapped = memory.map(); !mapped) return tl::unexpected(mapped.error());
  return memory;
}

Result<void> PeerMemory::map() {
  const Driver& functions = **driver();
  CUdeviceptr address = 0;
  CUresult result = functions.reserve(&address, bytes_, 0, 0, 0);
  if (result != CUDA_SUCCESS) return fail("no addresses for shared memory: {}", name_of(functions, result));
  result = functions.map(address, bytes_, 0, handle_, 0);
  if (result != CUDA_SUCCESS) {
    functions.free(address, bytes_);
    return fail("shared memory cannot be mapped: {}", name_of(functions, result));
  }
  address_ = address;
  CUmemAccessDesc access{};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = current_device();
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  result = functions.allow(address, bytes_, &access, 1);
  if (result != CUDA_SUCCESS) return fail("the device may not use shared memory: {}", name_of(functions, result));
  return {};
}

void PeerMemory::release() {
  if (handle_ == 0) return;
  const Driver& functions = **driver();
  if (address_ != 0) {
    functions.unmap(address_, bytes_);
    functions.free(address_, bytes_);
  }
  functions.release(handle_);
  handle_ = address_ = bytes_ = 0;
}

Result<Descriptor> PeerMemory::share() const {
  const Driver& functions = **driver();
  int descriptor = -1;
  const CUresult result = functions.share(&descriptor, handle_, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
  if (result != CUDA_SUCCESS) return fail("memory cannot be shared: {}", name_of(functions, result));
  return Descriptor(descriptor);
}

Result<std::string> device_bus_address() {
  char text[64] = {};
  const cudaError_t status = cudaDeviceGetPCIBusId(text, sizeof text, current_device());
  if (status != cudaSuccess) return fail("the device has no address on the bus: {}", cudaGetErrorString(status));
  return std::string(text);
}

bool reaches_device_at(const std::string& bus_address) {
  int device = 0;
  if (cudaDeviceGetByPCIBusId(&device, bus_address.c_str()) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  if (device == current_device()) return true;
  int reaches = 0;
  LORIKEET_CHECK_CUDA(cudaDeviceCanAccessPeer(&reaches, current_device(), device));
  return reaches != 0;
}

}  // namespace lorikeet::kernels
