// A safetensors file of a checkpoint: its header, and its tensors one by one as they are asked for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/base/error.h"
#include "model/checkpoint/file_reader.h"
#include "model/checkpoint/safetensors.h"

namespace lorikeet::model {

// Threads: const methods from any number of threads.
class SafetensorsFile : public std::enable_shared_from_this<SafetensorsFile> {
 public:
  // Reads and checks the header.
  static Result<std::shared_ptr<const SafetensorsFile>> open(const std::filesystem::path& path);

  const SafetensorsHeader& header() const { return header_; }
  const std::filesystem::path& path() const { return reader_->path(); }

  // The tensor without its bytes.
  std::optional<TensorView> find(std::string_view name) const;

  // Bytes of the data of a tensor of this file, from `offset` on.
  Result<void> read(const TensorEntry& entry, uint64_t offset, std::span<uint8_t> into) const;

 private:
  explicit SafetensorsFile(std::shared_ptr<const FileReader> reader) : reader_(std::move(reader)) {}

  std::shared_ptr<const FileReader> reader_;
  SafetensorsHeader header_;
};

// Reads the tensor's bytes, once, into memory that the view then owns.
Result<void> read_bytes(TensorView& tensor);

// The header of a whole file; `head` takes its bytes, the length before them included.
Result<SafetensorsHeader> read_safetensors_header(const FileReader& file, std::vector<uint8_t>& head);

}  // namespace lorikeet::model
