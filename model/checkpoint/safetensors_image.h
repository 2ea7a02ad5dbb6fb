// A safetensors file read into memory in two steps: first its header, so that what it claims can be judged before
// memory is given to its data. Unlike a mapping, the content does not change when the file is written over, and a file
// cut short while it is read is an error, not a signal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "model/checkpoint/safetensors.h"

namespace lorikeet::model {

class SafetensorsImage {
 public:
  // Reads and checks the header.
  static Result<std::shared_ptr<SafetensorsImage>> open(const std::filesystem::path& path);
  ~SafetensorsImage();
  SafetensorsImage(const SafetensorsImage&) = delete;
  SafetensorsImage& operator=(const SafetensorsImage&) = delete;

  const SafetensorsHeader& header() const { return header_; }
  uint64_t data_size() const { return size_ - header_.data_begin; }

  // Reads the data of the file that was opened, once.
  Result<void> read_data();
  std::span<const uint8_t> header_bytes() const { return head_; }
  std::span<const uint8_t> data() const { return data_; }

 private:
  SafetensorsImage(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::filesystem::path path_;
  int fd_;
  uint64_t size_ = 0;
  std::vector<uint8_t> head_, data_;
  SafetensorsHeader header_;
};

}  // namespace lorikeet::model
