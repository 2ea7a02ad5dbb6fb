#include "model/tokenizer/vocabulary.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace lorikeet::model {

Result<void> Vocabulary::add(int32_t id, std::string_view bytes) {
  if (id < 0 || id > kMaxId) return fail("token id {} is outside 0..{}", id, kMaxId);
  if (bytes.empty()) return fail("token {} is empty", id);
  if (bytes.size() > std::numeric_limits<uint32_t>::max() - blob_.size()) return fail("the vocabulary is over 4 GiB");
  if (static_cast<size_t>(id) < spans_.size() && spans_[id].length > 0) return fail("two tokens have id {}", id);
  if (2 * (count_ + 1) > index_.size()) grow_index();
  const size_t slot = slot_of(bytes);
  if (index_[slot] >= 0) return fail("tokens {} and {} are the same", index_[slot], id);
  if (static_cast<size_t>(id) >= spans_.size()) spans_.resize(id + 1);
  spans_[id] = {static_cast<uint32_t>(blob_.size()), static_cast<uint32_t>(bytes.size())};
  blob_.append(bytes);
  index_[slot] = id;
  ++count_;
  return {};
}

int32_t Vocabulary::find(std::string_view bytes) const {
  return index_.empty() ? -1 : index_[slot_of(bytes)];
}

std::string_view Vocabulary::bytes_of(int32_t id) const {
  if (id < 0 || id >= size()) return {};
  return std::string_view(blob_).substr(spans_[id].offset, spans_[id].length);
}

size_t Vocabulary::slot_of(std::string_view bytes) const {
  const size_t mask = index_.size() - 1;
  size_t slot = std::hash<std::string_view>{}(bytes)&mask;
  while (index_[slot] >= 0 && bytes_of(index_[slot]) != bytes) slot = (slot + 1) & mask;
  return slot;
}

void Vocabulary::grow_index() {
  index_.assign(std::max<size_t>(1024, 2 * index_.size()), -1);
  for (int32_t id = 0; id < size(); ++id) {
    if (spans_[id].length > 0) index_[slot_of(bytes_of(id))] = id;
  }
}

}  // namespace lorikeet::model
