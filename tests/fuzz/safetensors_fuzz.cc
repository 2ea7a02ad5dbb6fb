// The safetensors reader: whatever it accepts, every tensor lies inside the image, and together they cover its data.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "model/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> image(data, size);
  const auto header = lorikeet::model::parse_safetensors(image, "fuzz");
  if (!header) {
    if (header.error().message.empty()) std::abort();
    return 0;
  }
  uint64_t covered = 0;
  uint64_t sum = 0;  // reading every byte lets the address sanitizer see them
  for (const auto& [name, entry] : header->tensors) {
    if (name.empty() || entry.begin > entry.end || entry.end > size - header->data_begin) std::abort();
    for (const uint8_t byte : image.subspan(header->data_begin + entry.begin, entry.end - entry.begin)) sum += byte;
    const uint64_t bytes = entry.end - entry.begin;
    if (entry.dtype && static_cast<uint64_t>(entry.elements()) * lorikeet::kernels::size_of(*entry.dtype) != bytes) {
      std::abort();
    }
    covered += bytes;
  }
  if (covered != size - header->data_begin || sum > 255 * covered) std::abort();
  return 0;
}
