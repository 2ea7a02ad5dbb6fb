// What tests of the adapters' tables hand to them.
#pragma once

#include <memory>
#include <string>

#include "actors/head/file_stamp.h"
#include "actors/head/staged_adapter.h"

namespace lorikeet::actors {

inline FileStamp stamp(int64_t version) {
  return {{version, 10}, {version, 100}};
}

inline std::shared_ptr<const StagedAdapter> staged(const std::string& digest, uint64_t bytes = 10) {
  auto made = std::make_shared<StagedAdapter>();
  made->digest = digest;
  made->bytes = bytes;
  return made;
}

}  // namespace lorikeet::actors
