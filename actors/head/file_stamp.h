// How the head recognises whether an adapter's files are still those that it has read.
#pragma once

#include <cstdint>
#include <filesystem>

namespace lorikeet::actors {

// What a file is, and since when. Another file under the same name (a rename, a link that was moved) has another inode
// or device, and a file that was written has another time of change, which no program can set back as it can the time
// of modification: archives, images and releases leave sizes and times of modification that are all the same.
struct FileStamp {
  struct File {
    int64_t modified_ns = 0;
    int64_t bytes = -1;  // -1: there is no such file
    int64_t changed_ns = 0;
    uint64_t device = 0, inode = 0;
    bool regular = true;
    bool operator==(const File&) const = default;
  };
  File config, tensors;
  // False where an equal stamp later would prove nothing: the files were written so shortly before the look that a later
  // write may have left the same time of change, or they are not there, or their time lies in the future.
  bool conclusive = true;
  // Written within about two seconds before the look (by the clocks of both hosts), or not there: somebody may be in the
  // middle of writing.
  bool young = false;

  // Whether one of the files is not there: deleted, or about to be replaced.
  bool is_missing() const { return config.bytes < 0 || tensors.bytes < 0; }
  bool operator==(const FileStamp& other) const { return config == other.config && tensors == other.tensors; }
  // Whether files that look like `now` hold what they held when this stamp was taken.
  bool still_holds(const FileStamp& now) const { return conclusive && *this == now; }
};

// How old the files were at a time of the system's clock.
void set_age(FileStamp& stamp, int64_t now_ns);

// Links are followed. Blocks on the disk.
FileStamp stamp_of(const std::filesystem::path& dir);

}  // namespace lorikeet::actors
