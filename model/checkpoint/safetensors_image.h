// A safetensors file read into memory in two steps: first its header, so that its claims can be checked before memory is
// allocated for its data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/error.h"
#include "model/checkpoint/file_reader.h"
#include "model/checkpoint/safetensors.h"

namespace lorikeet::model {

class SafetensorsImage {
 public:
  // Reads and checks the header. within: as FileReader::open has it.
  static Result<std::shared_ptr<SafetensorsImage>> open(const std::filesystem::path& path,
                                                        std::span<const std::string> within = {});

  const SafetensorsHeader& header() const { return header_; }
  uint64_t data_size() const { return reader_->size() - header_.data_begin; }

  // Reads the data, once, tensor by tensor, on up to `threads` threads. `look` gets every tensor as soon as it is read, on
  // the thread that has read it, with its index in the header. Of several errors the first tensor's is returned.
  using Look = std::function<Result<void>(size_t index, const TensorEntry& entry, std::span<const uint8_t> bytes)>;
  Result<void> read_data(int threads = 1, const Look& look = nullptr);
  // The same without keeping the data: a tensor is there until `look` returns, and each thread has memory for one.
  Result<void> stream_data(int threads, const Look& look) const;
  std::span<const uint8_t> header_bytes() const { return head_; }
  std::span<const uint8_t> data() const { return {data_.get(), data_ ? data_size() : 0}; }

 private:
  explicit SafetensorsImage(std::shared_ptr<const FileReader> reader) : reader_(std::move(reader)) {}

  std::vector<const TensorEntry*> entries() const;

  std::shared_ptr<const FileReader> reader_;
  std::vector<uint8_t> head_;
  std::unique_ptr<uint8_t[]> data_;
  SafetensorsHeader header_;
};

}  // namespace lorikeet::model
