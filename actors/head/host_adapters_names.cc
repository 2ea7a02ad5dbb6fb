// HostAdapters' names: how they come, go and keep their contents.
#include <utility>

#include "actors/head/adapter_key.h"
#include "actors/head/host_adapters.h"

namespace lorikeet::actors {

bool HostAdapters::is_staged(const std::string& name) const {
  const Name* const entry = names_.find(name);
  return entry != nullptr && entry->content != nullptr && entry->content->staged != nullptr;
}

void HostAdapters::prepare(Id id, const std::string& key, std::string dir) {
  Name& entry = *hidden_.insert_or_assign(key, make_name(name_in_key(key), key, std::move(dir))).first->second;
  requests_[id] = {&entry, nullptr};
  entry.late.insert(id);
  start_check(entry);
}

void HostAdapters::enter(const std::string& key) {
  auto node = hidden_.extract(key);
  if (!node) return;
  Name& entry = *node.mapped();
  const Name* const before = names_.find(entry.name);
  if (before != nullptr && before->kept && entry.content != nullptr) {
    entry.kept = true;
    change_keepers(*entry.content, true);
  }
  leave(entry.name);
  names_.insert(std::move(node.mapped()));
}

void HostAdapters::abandon(const std::string& key) {
  Name* const entry = find_hidden(key);
  if (entry == nullptr) return;
  entry->leaves = true;
  note_rest(*entry);
}

void HostAdapters::restore(const std::string& key, std::string dir) {
  const std::string name = name_in_key(key);
  leave(name);
  names_.insert(make_name(name, key, std::move(dir)));
}

bool HostAdapters::leave(const std::string& name) {
  auto extracted = names_.extract(name);
  if (extracted == nullptr) return false;
  Name& entry = *extracted;
  if (std::exchange(entry.kept, false)) change_keepers(*entry.content, false);
  entry.leaves = true;
  hidden_.insert_or_assign(entry.key, std::move(extracted));
  note_rest(entry);
  return true;
}

void HostAdapters::note_rest(const Name& name) {
  if (name.leaves && name.work == Work::none && !name.awaited()) rests_.push_back(name.key);
}

// Between calls, since a name may come to rest in the middle of one.
void HostAdapters::erase_rests() {
  for (const std::string& key : std::exchange(rests_, {})) {
    Name* const entry = find_hidden(key);
    if (entry == nullptr || entry->work != Work::none || entry->awaited()) continue;
    Content* const content = entry->content;
    if (content != nullptr) content->leading.erase(entry);
    hidden_.erase(key);
    if (content == nullptr) continue;
    drop_if_stale(*content);
    serve_memory_queue();
  }
}

Result<void> HostAdapters::keep(const std::string& name, bool kept) {
  Name* const found = names_.find(name);
  if (found == nullptr) return fail("there is no adapter {}", name);
  Name& entry = *found;
  if (entry.kept == kept) return {};
  if (kept) {
    if (entry.content == nullptr || entry.content->staged == nullptr) return fail("{} is not in memory", name);
    const bool more = entry.content->keepers == 0;
    if (more && (kept_bytes_ + entry.content->bytes > limits_.bytes / 2 ||
                 list(Place::kept).size() + 1 >= static_cast<size_t>(limits_.count))) {
      return fail(
          "the {} pinned adapters and this one would leave too little memory to the others: pins may take half "
          "of --max-cpu-lora-bytes and all but one of --max-cpu-loras",
          list(Place::kept).size());
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
  if (before != now) effects_.push_back(Keep{content.digest, now});
  if (content.place == Place::draining) undrain(content);
  file(content);
  if (!one_more) released(content);
}

}  // namespace lorikeet::actors
