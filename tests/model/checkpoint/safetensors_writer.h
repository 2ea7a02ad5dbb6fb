// Writes safetensors files as the format's description has it, and broken ones.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/temp_dir.h"

namespace lorikeet::tests {

// u64 length, header, data.
inline std::string safetensors_image(std::string_view header, std::string_view data) {
  std::string image;
  for (int i = 0; i < 8; ++i) image += static_cast<char>(header.size() >> (8 * i));
  image += header;
  image += data;
  return image;
}

class SafetensorsWriter {
 public:
  template <class T>
  void add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
           const std::vector<T>& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    tensors_.push_back({name, dtype, shape, std::move(bytes)});
  }

  void remove(std::string_view name) {
    std::erase_if(tensors_, [&](const Tensor& tensor) { return tensor.name == name; });
  }

  // Puts `bits` into the last element of a tensor; false where it is of another type or not there.
  bool set_last(std::string_view name, std::string_view dtype, uint16_t bits) {
    for (Tensor& tensor : tensors_) {
      if (tensor.name != name || tensor.dtype != dtype) continue;
      std::memcpy(tensor.bytes.data() + tensor.bytes.size() - sizeof bits, &bits, sizeof bits);
      return true;
    }
    return false;
  }

  bool has(std::string_view name) const {
    for (const Tensor& tensor : tensors_) {
      if (tensor.name == name) return true;
    }
    return false;
  }

  std::string image(std::string_view metadata = R"({"format":"pt"})") const {
    std::string header = "{\"__metadata__\":" + std::string(metadata), data;
    for (const Tensor& tensor : tensors_) {
      header += fmt::format(R"(,"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", tensor.name, tensor.dtype,
                            fmt::join(tensor.shape, ","), data.size(), data.size() + tensor.bytes.size());
      data += tensor.bytes;
    }
    return safetensors_image(header + "}", data);
  }

  void write(const std::filesystem::path& path) const { write_file(path, image()); }

  // The tensors whose place in the order is `part` modulo `parts`, as one shard of several.
  SafetensorsWriter shard(size_t part, size_t parts) const {
    SafetensorsWriter writer;
    for (size_t i = part; i < tensors_.size(); i += parts) writer.tensors_.push_back(tensors_[i]);
    return writer;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const Tensor& tensor : tensors_) names.push_back(tensor.name);
    return names;
  }

 private:
  struct Tensor {
    std::string name, dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };
  std::vector<Tensor> tensors_;
};

}  // namespace lorikeet::tests
