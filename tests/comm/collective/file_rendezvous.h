// A rendezvous between processes of one host: keys are files of a directory. For tests alone.
#pragma once

#include <glog/logging.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "comm/collective/collective.h"
#include "comm/collective/rendezvous.h"
#include "tests/temp_dir.h"

namespace lorikeet::comm {

class FileRendezvous final : public Rendezvous {
 public:
  explicit FileRendezvous(std::filesystem::path directory) : directory_(std::move(directory)) {}

  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    const std::filesystem::path path = path_of(key), unfinished = path.string() + "+";
    {
      std::ofstream file(unfinished, std::ios::binary);
      file.write(reinterpret_cast<const char*>(value.data()), static_cast<std::streamsize>(value.size()));
    }
    std::filesystem::rename(unfinished, path);  // appears whole
  }

  std::vector<uint8_t> get(const std::string& key, std::chrono::milliseconds timeout) override {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    const int events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    PCHECK(events >= 0);
    const auto closer = std::unique_ptr<const int, void (*)(const int*)>(&events, [](const int* fd) { close(*fd); });
    PCHECK(inotify_add_watch(events, directory_.c_str(), IN_MOVED_TO) >= 0) << directory_;
    while (true) {
      if (std::ifstream file(path_of(key), std::ios::binary); file) {
        return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
      }
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) throw CollectiveError(CollectiveFailure::timeout, "no key " + key);
      pollfd item{events, POLLIN, 0};
      poll(&item, 1, static_cast<int>(left.count()));
      char drained[4096];
      while (read(events, drained, sizeof(drained)) > 0) {
      }
    }
  }

 private:
  std::filesystem::path path_of(std::string key) const {
    std::replace(key.begin(), key.end(), '/', '_');
    return directory_ / key;
  }

  const std::filesystem::path directory_;
};

}  // namespace lorikeet::comm
