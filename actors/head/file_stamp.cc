#include "actors/head/file_stamp.h"

#include <sys/stat.h>

#include <chrono>
#include <cstdlib>

namespace lorikeet::actors {
namespace {

// Kernels count times of change in ticks of up to 10 ms, file systems in steps of up to 2 s.
constexpr int64_t kConclusiveAfterNs = 2'100'000'000;

int64_t nanoseconds(const timespec& time) {
  return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

FileStamp::File stamp_of_file(const std::filesystem::path& path) {
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0) return {};
  return {nanoseconds(status.st_mtim), status.st_size, nanoseconds(status.st_ctim), status.st_dev, status.st_ino,
          S_ISREG(status.st_mode)};
}

// Where our clock is behind the file system's, files look young for longer: they are read more often, and rightly.
bool is_conclusive(const FileStamp::File& file, int64_t now_ns) {
  return file.bytes >= 0 && file.changed_ns + kConclusiveAfterNs < now_ns;
}

// A file whose time of change lies far in the future does not count as young until then: one of the clocks is wrong.
bool is_young(const FileStamp::File& file, int64_t now_ns) {
  return file.bytes < 0 || std::abs(now_ns - file.changed_ns) <= kConclusiveAfterNs;
}

}  // namespace

void set_age(FileStamp& stamp, int64_t now_ns) {
  stamp.conclusive = is_conclusive(stamp.config, now_ns) && is_conclusive(stamp.tensors, now_ns);
  stamp.young = is_young(stamp.config, now_ns) || is_young(stamp.tensors, now_ns);
}

FileStamp stamp_of(const std::filesystem::path& dir) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();  // before the look
  const int64_t now_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  FileStamp stamp{stamp_of_file(dir / "adapter_config.json"), stamp_of_file(dir / "adapter_model.safetensors")};
  set_age(stamp, now_ns);
  return stamp;
}

}  // namespace lorikeet::actors
