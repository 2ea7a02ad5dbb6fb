// Where a host keeps the parts of checkpoints that it got from a head: a folder for each checkpoint, with files of the
// same names, sizes and headers, whose other bytes are holes where no rank of this host needs them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "actors/wire/checkpoint_message.h"
#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// A file of it. Threads: reads and writes of different bytes from any number of threads.
class CachedFile {
 public:
  // Made where there is none, and given this size; what it holds within stays.
  static Result<CachedFile> open(const std::filesystem::path& path, uint64_t bytes);

  // Empty: nothing was ever written there.
  Result<std::vector<uint8_t>> read(const model::ByteRuns& runs) const;
  uint64_t bytes_missing(const model::ByteRuns& runs) const;  // that were never written, by the blocks of the disk
  Result<void> write(const model::ByteRuns& runs, std::span<const uint8_t> bytes) const;
  // As if nothing had ever been written.
  Result<void> empty() const;

 private:
  CachedFile(std::filesystem::path path, Descriptor file) : path_(std::move(path)), file_(std::move(file)) {}

  std::filesystem::path path_;
  Descriptor file_;
};

// Threads: one at a time.
class CheckpointCache {
 public:
  // space: bytes of all folders together; 0: no bound.
  CheckpointCache(std::filesystem::path root, uint64_t space) : root_(std::move(root)), space_(space) {}

  // The folder of a checkpoint, which no other process writes to or removes from now on until another one is opened. Who
  // comes while another one has it gets a second folder: a home directory may be that of many hosts, and a file that is
  // written to while a rank loads it is an error to that rank. Errors: names that are no plain names, the disk.
  Result<std::filesystem::path> open(const std::string& model, const std::vector<checkpoint::File>& files);

  // Removes those that were used the longest ago, and that nobody uses, until the open one may take `bytes`.
  Result<void> make_room(uint64_t bytes) const;

  uint64_t bytes_on_disk() const;  // of the folder that is open; holes take nothing
  uint64_t space() const { return space_; }

 private:
  const std::filesystem::path root_;
  const uint64_t space_;
  std::string name_;              // of the checkpoint that is open
  std::filesystem::path folder_;  // of it
  Descriptor lock_;               // of it
};

}  // namespace lorikeet::actors
