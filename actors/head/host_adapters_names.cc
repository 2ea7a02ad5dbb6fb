// HostAdapters' names: how they come, go and keep their contents.
#include <utility>

#include "actors/head/adapter_key.h"
#include "actors/head/host_adapters.h"

namespace lorikeet::actors {

bool HostAdapters::is_staged(const std::string& name) const {
  const auto it = names_.find(name);
  return it != names_.end() && it->second.content != nullptr && it->second.content->staged != nullptr;
}

void HostAdapters::prepare(Id id, const std::string& key, std::string dir) {
  Name& entry = add(hidden_, name_in_key(key), key, std::move(dir));
  requests_[id] = {&entry, nullptr};
  entry.late.insert(id);
  start_check(entry);
}

void HostAdapters::enter(const std::string& key) {
  auto node = hidden_.extract(key);
  if (!node) return;
  Name& entry = node.mapped();
  const auto before = names_.find(entry.name);
  if (before != names_.end() && before->second.kept && entry.content != nullptr) {
    entry.kept = true;
    change_keepers(*entry.content, true);
  }
  leave(entry.name);
  node.key() = entry.name;
  names_.insert(std::move(node));
}

void HostAdapters::abandon(const std::string& key) {
  const auto it = hidden_.find(key);
  if (it == hidden_.end()) return;
  it->second.leaves = true;
  note_rest(it->second);
}

void HostAdapters::restore(const std::string& key, std::string dir) {
  const std::string name = name_in_key(key);
  leave(name);
  add(names_, name, key, std::move(dir));
}

bool HostAdapters::leave(const std::string& name) {
  auto node = names_.extract(name);
  if (!node) return false;
  Name& entry = node.mapped();
  if (std::exchange(entry.kept, false)) change_keepers(*entry.content, false);
  entry.leaves = true;
  node.key() = entry.key;
  hidden_.insert(std::move(node));
  note_rest(entry);
  return true;
}

void HostAdapters::note_rest(const Name& name) {
  if (name.leaves && name.work == Work::none && !name.awaited()) rests_.push_back(name.key);
}

// Between calls, since a name may come to rest in the middle of one.
void HostAdapters::erase_rests() {
  for (const std::string& key : std::exchange(rests_, {})) {
    const auto it = hidden_.find(key);
    if (it == hidden_.end() || it->second.work != Work::none || it->second.awaited()) continue;
    Content* const content = it->second.content;
    if (content != nullptr) content->leading.erase(&it->second);
    hidden_.erase(it);
    if (content == nullptr) continue;
    drop_if_stale(*content);
    serve_memory_queue();
  }
}

Result<void> HostAdapters::keep(const std::string& name, bool kept) {
  const auto it = names_.find(name);
  if (it == names_.end()) return fail("there is no adapter {}", name);
  Name& entry = it->second;
  if (entry.kept == kept) return {};
  if (kept) {
    if (entry.content == nullptr || entry.content->staged == nullptr) return fail("{} is not in memory", name);
    const bool more = entry.content->keepers == 0;
    if (more && (kept_bytes_ + entry.content->bytes > limits_.bytes / 2 ||
                 kept_.size() + 1 >= static_cast<size_t>(limits_.count))) {
      return fail(
          "the {} pinned adapters and this one would leave too little memory to the others: pins may take half "
          "of --max-cpu-lora-bytes and all but one of --max-cpu-loras",
          kept_.size());
    }
  }
  entry.kept = kept;
  change_keepers(*entry.content, kept);
  serve_memory_queue();
  return {};
}

// The content may be gone afterwards.
void HostAdapters::change_keepers(Content& content, bool one_more) {
  const bool before = content.keepers > 0;
  one_more ? ++content.keepers : --content.keepers;
  const bool now = content.keepers > 0;
  if (before != now) effects_.push_back(Keep{*content.digest, now});
  if (content.list == &draining_) undrain(content);
  file(content);
  if (!one_more) released(content);
}

}  // namespace lorikeet::actors
