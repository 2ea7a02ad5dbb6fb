// Where a host keeps the parts of checkpoints that it got from a head: a folder for each checkpoint, with sparse files of the
// same names, sizes and headers, in which the bytes that no rank of this host needs are holes.
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
  // Creates it where there is none, and gives it this size; its content within that stays.
  static Result<CachedFile> open(const std::filesystem::path& path, uint64_t bytes);

  // Empty: nothing was ever written there.
  Result<std::vector<uint8_t>> read(const model::ByteRuns& runs) const;
  uint64_t bytes_missing(const model::ByteRuns& runs) const;  // never written, in whole blocks of the disk
  Result<void> write(const model::ByteRuns& runs, std::span<const uint8_t> bytes) const;
  // Makes the whole file a hole.
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

  // Opens the folder of a checkpoint, which no other process writes to or removes until this one opens another. While
  // another process has it, a second folder is used: hosts may share a home directory, and a file that changes while a rank
  // loads it is an error to that rank. Errors: names with directories in them, the disk.
  Result<std::filesystem::path> open(const std::string& model, const std::vector<checkpoint::File>& files);

  // Removes folders that nobody uses, the least recently used first, until the open one may take `bytes`.
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
