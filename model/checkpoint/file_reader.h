// A regular file that is read into memory of the reader's own, never mapped: what was read does not change when the
// file is written over, and a file that is cut short or written to while it is being read is an error, not a signal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "kernels/base/error.h"

namespace lorikeet::model {

// Threads: const methods from any number of threads.
class FileReader {
 public:
  // within: directories (real paths) below one of which the file must lie, whatever links lead there; empty: anywhere. The
  // opened file is checked, so a link that is moved meanwhile makes no difference.
  static Result<std::shared_ptr<const FileReader>> open(const std::filesystem::path& path,
                                                        std::span<const std::string> within = {});
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }  // bytes, when it was opened

  // Fills `into` with the bytes from `offset` on. Fails, naming the file, if it has been written to since it was opened: what
  // was read would be a mix of two files.
  Result<void> read(uint64_t offset, std::span<uint8_t> into) const;

 private:
  FileReader(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::filesystem::path path_;
  int fd_;
  uint64_t size_ = 0;
  int64_t written_ns_ = 0;  // time of the last write
};

// Bytes that all readers of this process have read so far.
uint64_t bytes_read_from_files();

}  // namespace lorikeet::model
